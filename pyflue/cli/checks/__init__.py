"""What ``pyflue doctor`` looks at, one module per subject. Each check returns findings and repairs nothing."""
