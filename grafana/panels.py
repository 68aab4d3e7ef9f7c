"""The few kinds of panel that the dashboards are made of, and the frame that all of them share.

In: a title, what it tells, PromQL with a legend, a unit, limits. Out: builders of the Grafana foundation SDK.
"""

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${environment}")
Query = tuple[str, str]  # PromQL, legend
Limits = Sequence[tuple[float | None, str]]  # from this value on, this colour; the first one has no value
GOOD: Limits = [(None, "green")]
MLFLOW_RUN = "${mlflow}/#/experiments/${mlflow_experiment}/runs/${mlflow_run}"
RAY_JOB = "${ray}/#/jobs/${ray_job}"


def lines(
    title: str,
    tells: str,
    *queries: Query,
    unit: str = "short",
    width: int = 8,
    limits: Limits = (),
    low: float | None = 0,
    high: float | None = None,
    high_at_least: float | None = None,
    stacked: bool = False,
) -> Any:
    """Values over time; limits are drawn as dashed lines."""
    panel = _frame(timeseries.Panel(), title, tells, queries, unit, width, 8, limits)
    legend = common.VizLegendOptions().display_mode(shapes.LegendDisplayMode.LIST)
    panel.legend(legend.placement(shapes.LegendPlacement.BOTTOM).show_legend(True))
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI))
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.PALETTE_CLASSIC))
    panel.fill_opacity(25 if stacked else 5).line_width(2).show_points(shapes.VisibilityMode.AUTO).span_nulls(False)
    if limits:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(shapes.GraphTresholdsStyleMode.DASHED))
    if stacked:
        panel.stacking(common.StackingConfig().mode(shapes.StackingMode.NORMAL))
    if low is not None:
        panel.min(low)
    if high is not None:
        panel.max(high)
    if high_at_least is not None:
        panel.axis_soft_max(high_at_least)
    return panel


def number(
    title: str, tells: str, query: str, unit: str = "short", width: int = 4, limits: Limits = GOOD, legend: str = ""
) -> Any:
    """One figure, coloured by its limits. With a legend, the legend's text is the figure."""
    panel = _frame(stat.Panel(), title, tells, [(query, legend)], unit, width, 4, limits, instant=True)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    panel.graph_mode(shapes.BigValueGraphMode.NONE).color_mode(shapes.BigValueColorMode.VALUE)
    if legend:
        panel.text_mode(shapes.BigValueTextMode.NAME)
    return panel


def bars(title: str, tells: str, *queries: Query, unit: str = "short", width: int = 8, limits: Limits = GOOD) -> Any:
    """The present value of each series as a bar."""
    panel = _frame(bargauge.Panel(), title, tells, queries, unit, width, 8, limits, instant=True)
    panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(False))
    panel.color_scheme(dashboard.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
    return panel.orientation(shapes.VizOrientation.HORIZONTAL).display_mode(shapes.BarGaugeDisplayMode.BASIC).min(0)


def listing(
    title: str, tells: str, key: str, columns: Sequence[tuple[str, str, str]], shown: dict[str, str], width: int = 24
) -> Any:
    """A table with a row for each value of the label ``key``.

    Columns are (title, PromQL, unit), without a title they are not shown; ``shown`` renames labels to columns.
    """
    queries = [(expression, "") for _, expression, _ in columns]
    panel = _frame(table.Panel(), title, tells, queries, "short", width, 10, (), instant=True).show_header(True)
    values = {f"Value #{chr(65 + place)}": column for place, (column, _, _) in enumerate(columns)}
    names = shown | {value: column for value, column in values.items() if column}
    join = {"byField": key, "mode": "outer"}
    panel.with_transformation(models.DataTransformerConfig(id_val="joinByField", options=join))
    times = ["Time", *(f"Time {place + 1}" for place in range(len(columns)))]
    hidden = dict.fromkeys([*times, *(value for value, column in values.items() if not column)], True)
    panel.with_transformation(
        models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden, "renameByName": names})
    )
    for column, _, unit in (each for each in columns if each[0]):
        panel.override_by_name(column, [models.DynamicConfigValue(id_val="unit", value=unit)])
    return panel


def board(uid: str, title: str, tells: str, variables: Sequence[Any], *sections: tuple[str, Sequence[Any]]) -> Any:
    """A dashboard of rows of panels, with the variables and links that all of them have."""
    made = dashboard.Dashboard(title).uid(uid).description(tells).tags(["xray"]).readonly()
    made.timezone("browser").refresh("30s").time("now-3h", "now").tooltip(models.DashboardCursorSync.CROSSHAIR)
    for variable in (*_environment(), *variables):
        made.with_variable(variable)
    made.link(dashboard.DashboardLink("X-ray dashboards").type(models.DashboardLinkType.DASHBOARDS).tags(["xray"])
              .as_dropdown(True).include_vars(True).keep_time(True))  # fmt: skip
    for name, url, hint in _addresses(variables):
        made.link(
            dashboard.DashboardLink(name)
            .type(models.DashboardLinkType.LINK)
            .icon("external link")
            .url(url)
            .tooltip(hint)
            .target_blank(True)
        )
    number_of = 0
    for heading, panels in sections:
        made.with_row(dashboard.Row(heading))
        for panel in panels:
            number_of += 1
            made.with_panel(panel.id(number_of))
    return made


def run_variable(label: str, of: str = "ray_xray_run_start_timestamp_seconds", several: bool = False) -> list[Any]:
    """Which run to look at, and where it lies in MLflow and in Ray."""
    made = [_query("run", label, f"label_values({of}, run)", several)]
    if not several:
        for name in ("mlflow_experiment", "mlflow_run", "ray_job"):
            query = f'label_values(ray_xray_run_info{{run="$run"}}, {name})'
            made.append(_query(name, name, query).hide(models.VariableHide.HIDE_VARIABLE))
    return made


def node_variable() -> Any:
    """Which nodes to look at."""
    return _query("node", "Node", "label_values(ray_node_cpu_utilization, ip)", several=True)


def _query(name: str, label: str, query: str, several: bool = False) -> Any:
    made = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(query)
    made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_DESC)
    if several:
        made.multi(True).include_all(True).all_value(".*")
        made.current(models.VariableOption(text="All", value="$__all", selected=True))
    return made


def _environment() -> list[Any]:
    return [
        dashboard.DatasourceVariable("environment")
        .label("Environment")
        .description("Each environment has a Prometheus of its own.")
        .type("prometheus")
        .current(models.VariableOption(text="Prometheus", value="prometheus", selected=True)),
        _address("mlflow", "MLflow at", "http://localhost:5000"),
        _address("ray", "Ray at", "http://localhost:8265"),
    ]


def _address(name: str, label: str, url: str) -> Any:
    made = dashboard.TextBoxVariable(name).label(label).default_value(url)
    return made.description("As your browser reaches it; the links use it.")


def _addresses(variables: Sequence[Any]) -> list[tuple[str, str, str]]:
    if any(variable.build().name == "mlflow_run" for variable in variables):
        return [
            ("This run in MLflow", MLFLOW_RUN, "Curves, files and the registered model"),
            ("Its job in Ray", RAY_JOB, "Log, workers and resources"),
        ]
    return [
        ("MLflow", "${mlflow}", "Runs and the model registry"),
        ("Ray dashboard", "${ray}", "Jobs, nodes, actors and logs"),
    ]


def _frame(
    panel: Any,
    title: str,
    tells: str,
    queries: Sequence[Query],
    unit: str,
    width: int,
    height: int,
    limits: Limits,
    instant: bool = False,
) -> Any:
    panel.title(title).description(tells).datasource(SOURCE).unit(unit).span(width).height(height)
    for place, (expression, legend) in enumerate(queries):
        query = prometheus.Dataquery().ref_id(chr(65 + place)).expr(expression).legend_format(legend or "__auto")
        if instant:
            in_rows = isinstance(panel, table.Panel)
            query.instant().format(PromQueryFormat.TABLE if in_rows else PromQueryFormat.TIME_SERIES)
        else:
            query.range()
        panel.with_target(query)
    steps = [models.Threshold(value=value, color=colour) for value, colour in limits or GOOD]
    panel.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    return panel
