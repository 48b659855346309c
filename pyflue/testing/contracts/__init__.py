"""What every store promises, one test for each promise.

Subclass a contract in your own tests and give it the fixtures ``StoreContract`` names; pytest does the rest. The
tests are coroutines: run them with pytest-asyncio in its auto mode. docs/reference/contract.md lists the promises.
"""

from __future__ import annotations

import pkgutil

import pytest

# Before the modules below are imported: without it a failing assertion in them would show no values.
pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))
