"""Everything a ``Ledger`` promises, in one class to subclass."""

from __future__ import annotations

from pyflue.testing.contracts.admission import AdmissionContract
from pyflue.testing.contracts.attempts import AbortContract, AttemptContract
from pyflue.testing.contracts.leases import LeaseContract
from pyflue.testing.contracts.settlement import SettlementContract


class LedgerContract(AdmissionContract, LeaseContract, AttemptContract, SettlementContract, AbortContract):
    """Admission, leases, attempts, settlement and aborts."""
