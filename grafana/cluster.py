"""The cluster: is everything there, is anything full, is anything waiting?"""

from typing import Any

from grafana.panels import Limits, board, lines, node_variable, number, run_variable

_NODE = '{ip=~"$node"}'
_OWN = "gcs|raylet|agent|dashboard|ray::DashboardAgent"
_FULL: Limits = [(None, "green"), (80, "orange"), (90, "red")]
_DOWN: Limits = [(None, "red"), (1, "green")]


def build() -> Any:
    """The dashboard."""
    there = [
        number("Nodes", "Alive, the head included.", "sum(ray_cluster_active_nodes)", limits=_DOWN),
        number("CPUs", "That Ray may give away.", 'sum(ray_resources{Name="CPU"})'),
        number("GPUs", "That Ray may give away.", 'sum(ray_resources{Name="GPU"}) or vector(0)'),
        number("Jobs running", "Drivers that are connected.", "sum(ray_running_jobs)"),
        number(
            "Object store",
            "Put, get, compare and delete of a small object, every 15 s. 1 is good.",
            'min(xray_probe_up{service="object-store"})',
            limits=_DOWN,
        ),
        number(
            "MLflow",
            "A search for experiments through its API, every 15 s. 1 is good.",
            'min(xray_probe_up{service="mlflow"})',
            limits=_DOWN,
        ),
        lines(
            "Ranks at work",
            "Of the chosen runs, at each moment.",
            ('sum by (run) (max by (run, rank) (ray_xray_rank_up{run=~"$run"}))', "{{run}}"),
            width=12,
        ),
        lines(
            "How fast do store and tracking answer?",
            "The probes' own calls.",
            ("max by (service) (xray_probe_seconds)", "{{service}}"),
            unit="s",
            width=12,
        ),
    ]
    full = [
        lines(
            "CPU",
            "Of each node.",
            (f"max by (ip) (ray_node_cpu_utilization{_NODE})", "{{ip}}"),
            unit="percent",
            high=100,
        ),
        lines(
            "Memory",
            "Used, of each node. Ray kills workers at 95 %.",
            (f"100 * max by (ip) (ray_node_mem_used{_NODE} / ray_node_mem_total{_NODE})", "{{ip}}"),
            unit="percent",
            high=100,
            limits=_FULL,
        ),
        lines(
            "Disk",
            "Used, of each node. Ray spills no objects and the pixel cache is left out when a disk is full.",
            (f"max by (ip) (ray_node_disk_utilization_percentage{_NODE})", "{{ip}}"),
            unit="percent",
            high=100,
            limits=_FULL,
        ),
        lines(
            "GPU",
            "Utilization of each.",
            (f"max by (ip, GpuIndex) (ray_node_gpus_utilization{_NODE})", "{{ip}} GPU {{GpuIndex}}"),
            unit="percent",
            high=100,
        ),
        lines(
            "GPU memory",
            "Used, of each GPU.",
            (f"max by (ip, GpuIndex) (ray_node_gram_used{_NODE})", "{{ip}} GPU {{GpuIndex}}"),
            unit="decmbytes",
        ),
        lines(
            "Object store of Ray",
            "Used share of each node's shared memory.",
            (
                "100 * sum by (NodeAddress) (ray_object_store_used_memory) / "
                "(sum by (NodeAddress) (ray_object_store_used_memory) + "
                "sum by (NodeAddress) (ray_object_store_available_memory))",
                "{{NodeAddress}}",
            ),
            unit="percent",
            high=100,
            limits=_FULL,
        ),
        lines(
            "Disk traffic",
            "Reads above, writes below zero.",
            (f"max by (ip) (ray_node_disk_io_read_speed{_NODE})", "{{ip}} read"),
            (f"-max by (ip) (ray_node_disk_io_write_speed{_NODE})", "{{ip}} write"),
            unit="Bps",
            low=None,
        ),
        lines(
            "Network",
            "Received above, sent below zero.",
            (f"max by (ip) (ray_node_network_receive_speed{_NODE})", "{{ip}} received"),
            (f"-max by (ip) (ray_node_network_send_speed{_NODE})", "{{ip}} sent"),
            unit="Bps",
            low=None,
        ),
        lines(
            "Memory of Ray's own processes",
            "Head, node and agents; it should stay flat over weeks.",
            (f"sum by (Component) (ray_component_uss_bytes{{Component=~'{_OWN}', ip=~'$node'}})", "{{Component}}"),
            unit="bytes",
            stacked=True,
        ),
    ]
    waiting = [
        lines(
            "CPUs in use",
            "What Ray has given away, and what is left.",
            ('sum by (State) (ray_resources{Name="CPU"})', "{{State}}"),
            stacked=True,
        ),
        lines(
            "What waits in Ray's queues?",
            "Tasks by state; Waiting ones need room that is not there.",
            ("sum by (State) (ray_scheduler_tasks)", "{{State}}"),
        ),
        lines(
            "Why does it wait?",
            "Infeasible: no node could ever hold it; ask for less, or add such a node.",
            ("sum by (Reason) (ray_scheduler_unscheduleable_tasks)", "{{Reason}}"),
        ),
        lines("Actors", "By state.", ('sum by (State) (ray_gcs_actors_count{State!~"Destroyed|Cached"})', "{{State}}")),
        lines(
            "Is the head keeping up?",
            "The longest lag of its event loops; above a second everything is slow.",
            ('max by (Component) (ray_io_context_event_loop_lag_ms{Component="gcs_server"})', "{{Component}}"),
            unit="ms",
            limits=[(None, "green"), (1000, "red")],
        ),
        lines(
            "Spilled objects",
            "Bytes that Ray moved from memory to disk.",
            ('sum by (State) (ray_spill_manager_objects_bytes{State=~"Spilled|Restored"})', "{{State}}"),
            unit="bytes",
        ),
    ]
    return board(
        "xray-cluster",
        "Cluster: is everything there, is anything full, is anything waiting?",
        "Nodes, GPUs, memory, object store, disk, network and Ray's queues.",
        [node_variable(), *run_variable("Run", several=True)],
        ("Is everything there?", there),
        ("Is anything full?", full),
        ("Is anything waiting?", waiting),
    )
