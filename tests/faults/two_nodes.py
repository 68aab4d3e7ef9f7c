"""A cluster of two nodes of one CPU each on this machine; does what it reads from its input, line by line.

kill     the second node dies: its raylet and all on it, SIGKILL
add      a second node joins
drain S  Ray is told that the second node will be taken away in S seconds, as a cloud would say it
"""

import os
import sys
import time

import ray
import ray.cluster_utils


def main() -> None:
    node = {"num_cpus": 1, "object_store_memory": 100_000_000}
    cluster = ray.cluster_utils.Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    second = cluster.add_node(**node, node_ip_address="127.0.0.2")
    cluster.wait_for_nodes()
    print("READY", cluster.address, flush=True)
    for line in sys.stdin:
        what, _, seconds = line.strip().partition(" ")
        if what == "kill":
            cluster.remove_node(second, allow_graceful=False)
        elif what == "add":
            second = cluster.add_node(**node, node_ip_address="127.0.0.2")
        elif what == "drain":
            _drain(cluster, second, float(seconds))
        print("DONE", what, flush=True)
    cluster.shutdown()


def _drain(cluster: ray.cluster_utils.Cluster, node: object, seconds: float) -> None:
    from ray._raylet import GcsClient
    from ray.core.generated import autoscaler_pb2

    deadline = int((time.time() + seconds) * 1000)
    reason = autoscaler_pb2.DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    client = GcsClient(address=cluster.address)
    accepted, why = client.drain_node(node.node_id, reason, "the machine is needed elsewhere", deadline)
    assert accepted, why


if __name__ == "__main__":
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    main()
