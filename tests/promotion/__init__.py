"""`python -m tests.promotion`: how often the rule of promotion errs, as docs/promotion.md has it."""
