"""A Ray cluster of one node for tests: prints its address, session folder and dashboard, and ends with its input."""

import sys

import ray.cluster_utils

cluster = ray.cluster_utils.Cluster(
    initialize_head=True,
    head_node_args={
        "num_cpus": 3,
        "include_dashboard": True,
        "dashboard_port": 0,
        "_system_config": {"metrics_report_interval_ms": 1000},
    },
)
print("READY", cluster.address, cluster.head_node.get_session_dir_path(), cluster.webui_url, flush=True)
sys.stdin.read()
cluster.shutdown()
