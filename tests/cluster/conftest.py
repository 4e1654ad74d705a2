"""A cluster on this machine, for all tests of this folder."""

from __future__ import annotations

import logging
import warnings

import pytest


@pytest.fixture(scope="session")
def cluster():
    """Two workers, processes of their own; what dies is started again."""
    distributed = pytest.importorskip("distributed", reason="the extra [cluster] is not installed")
    import dask

    quiet = {
        "logging.distributed": "critical",
        "distributed.deploy.lost-worker-timeout": "1 hour",  # on a busy machine they take long
    }
    with warnings.catch_warnings(), dask.config.set(quiet):
        warnings.simplefilter("ignore")
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        with distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            silence_logs=False,  # it would silence the handlers of these tests too
        ) as running:
            yield running


@pytest.fixture
def address(cluster):
    """Of its scheduler."""
    return cluster.scheduler_address
