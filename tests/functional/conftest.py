"""After each test, the books of every instance that still runs balance."""

from collections.abc import Generator

import pytest

from tests.functional.instance import Instance


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, object, object]:
    """The test, and if it has not failed, the balance."""
    result = yield
    for instance in Instance.started:
        instance.check_balance()
    return result
