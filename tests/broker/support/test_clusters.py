"""The tests' own clusters, of real nodes."""

from __future__ import annotations

import pytest

from support import RawClient
from support.clusters import in_own_vhost, running_cluster
from support.eventually import eventually


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_a_cluster_replicates_a_queue_and_is_whole_again_after_the_death_of_its_leader() -> None:
    with running_cluster(prefer="installed") as cluster:
        first, second, third = cluster.nodes
        with in_own_vhost(cluster) as vhost:
            with RawClient(vhost.url_of(second)) as raw:
                raw.declare("q", {"x-queue-type": "quorum"})
                raw.publish("q", b"x")
            assert len(vhost.queue("q")["members"]) == 3
            assert vhost.node_of("q") is second
            assert vhost.urls(first=third).startswith(vhost.url_of(third) + ";")

            second.kill()
            # The others need a moment to notice; until then a basic.get ends with 541.
            eventually(lambda: vhost.node_of("q") is not second, within=20)

            with RawClient(vhost.url_of(first)) as raw:
                assert raw.get("q", within=20).body == b"x"
        assert all(node.is_running() for node in cluster.nodes)
    assert not any(node.is_running() for node in cluster.nodes)
