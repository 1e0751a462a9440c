"""Specialists that were trained elsewhere: fetched or copied, audited against their base, published like trained ones."""
