"""The network at work: preprocessing, lung mask, bundle, classifier, verdict."""
