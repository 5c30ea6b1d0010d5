"""When a candidate may become the active model by itself: only where it is shown to harm nobody.

`exact` holds the tests, exact and on patients; `outcomes` one outcome a patient, of each of two models; `rule` what
must be shown of them; `groups` which patients may be asked, and how much error is left for the question; `decision`
asks two bundles and applies the rule; `simulation` tells how often it errs, beside the rule before it.
"""
