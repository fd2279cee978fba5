import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from autoperi.discovery.campaign import executors
from autoperi.discovery.campaign.executors import in_processes
from tests.autoperi.discovery.campaign.campaigns import shard

ray = pytest.importorskip("ray", reason="ray is not installed")


def slow(_, number):
    """A shard that takes a moment."""
    time.sleep(0.3)
    return shard(number)


def refusing(_, number):
    raise ValueError(f"nothing of the kind: {number}")


def test_one_process_is_this_one(monkeypatch):
    monkeypatch.setattr(executors, "searched", slow)
    assert [s.number for s in in_processes(1)(b"", [4, 5])] == [4, 5]


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("nonsense", "expected a Ray cluster as HOST:PORT, auto or local: got 'nonsense'"),
        ("127.0.0.1:99999", "expected a Ray cluster"),
        ("ray://:1", "expected a Ray cluster"),
        ("127.0.0.1:9", "no Ray cluster answers at 127.0.0.1:9 "),
    ],
)
def test_where_nothing_answers_nothing_is_waited_for(address, told):
    """Told before anything is drawn."""
    with pytest.raises(ValueError, match=told):
        executors.on_ray(address)


def test_what_listens_and_is_no_cluster_is_not_waited_for():
    """A web server, say."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(ValueError, match="something else listens there"):
            executors.on_ray(f"127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_machine_without_a_cluster_says_how_to_begin_one():
    with pytest.raises(ValueError, match="no Ray cluster runs on this machine: begin with `ray start"):
        next(executors.on_ray("auto")(b"", [0]))


@pytest.fixture
def cluster():
    """Two nodes of one core on this machine."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    ray.init(address=made.address, log_to_driver=False)
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_node_that_dies_costs_its_shards_time(cluster, monkeypatch):
    """All shards come, each as it would have come from anywhere."""
    monkeypatch.setattr(executors, "searched", slow)
    found = {}
    for one in executors.on_ray(cluster.address)(b"", list(range(12))):
        found[one.number] = one
        if len(found) == 3:
            (node,) = cluster.worker_nodes
            cluster.remove_node(node, allow_graceful=False)
    assert sorted(found) == list(range(12))
    assert all(one.record() == shard(number).record() for number, one in found.items())


@pytest.mark.usefixtures("cluster")
def test_what_a_shard_raises_is_raised_here(monkeypatch):
    monkeypatch.setattr(executors, "searched", refusing)
    with pytest.raises(ValueError, match="nothing of the kind: 7"):
        list(executors.on_ray("auto")(b"", [7]))
