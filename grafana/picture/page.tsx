// Draws a dashboard's panels with Grafana's own components from answers that Prometheus gave. See draw.py.
import React from "react";
import { createRoot } from "react-dom/client";
import {
  applyFieldOverrides, createTheme, dateTime, FieldType, getDisplayProcessor, getFieldDisplayValues,
  standardTransformers, standardTransformersRegistry, toDataFrame, transformDataFrame,
} from "@grafana/data";
import {
  BarGauge, BarGaugeDisplayMode, BigValue, BigValueColorMode, BigValueGraphMode, BigValueJustifyMode,
  BigValueTextMode, ThemeContext, TimeSeries,
} from "@grafana/ui";
import "uplot/dist/uPlot.min.css";

type Any = any; // the JSON is checked against Grafana's types elsewhere
declare const DATA: { board: Any; answers: Record<string, Any[]>; began: number; ended: number };
const { board, answers, began, ended } = DATA;
const theme = createTheme({ colors: { mode: "light" } });
const ROW = 38, COLUMN = 1500 / 24, STILL_THERE_S = 5;
const STEP_MS = 2000; // of the answers; as a server does, so that a gap stays a gap
const range: Any = { from: dateTime(began * 1000), to: dateTime(ended * 1000), raw: { from: "", to: "" } };

const known = Object.values(standardTransformers).filter((t: Any, at, all: Any[]) => all.findIndex((o) => o.id === t.id) === at);
standardTransformersRegistry.setInit(() =>
  known.map((t: Any) => ({ id: t.id, name: t.name, transformation: t, aliasIds: [], description: "", editor: () => null })) as Any,
);

function named(format: string, labels: Any): string {
  if (!format || format === "__auto") return Object.values(labels).join(" ");
  return format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_: string, label: string) => labels[label] ?? "");
}

// A table's frame has a column per label; any other has one frame per series.
function framesOf(panel: Any): Any[] {
  return panel.targets.flatMap((target: Any) => {
    const found = (answers[target.expr] ?? []).filter((s) => !target.instant || s.values.at(-1)[0] > ended - STILL_THERE_S);
    if (panel.type === "table") {
      const labels = [...new Set(found.flatMap((s) => Object.keys(s.metric)))] as string[];
      const columns = labels.map((label) => ({ name: label, type: FieldType.string, values: found.map((s) => s.metric[label]) }));
      const values = found.map((s) => parseFloat(s.values.at(-1)[1]));
      return [toDataFrame({ fields: [
        { name: "Time", type: FieldType.time, values: found.map(() => ended * 1000) }, ...columns,
        { name: `Value #${target.refId}`, type: FieldType.number, values },
      ] })];
    }
    const { custom, ...defaults } = panel.fieldConfig.defaults;
    return found.map((s) => toDataFrame({ refId: target.refId, fields: [
      { name: "Time", type: FieldType.time, config: { interval: STEP_MS }, values: s.values.map((v: Any) => v[0] * 1000) },
      { name: "Value", type: FieldType.number, labels: s.metric, values: s.values.map((v: Any) => parseFloat(v[1])),
        config: { ...defaults, displayNameFromDS: named(target.legendFormat, s.metric), custom: { lineWidth: 2, ...custom } } },
    ] }));
  });
}

const prepared = (panel: Any, data: Any[]): Any[] =>
  applyFieldOverrides({ data, fieldConfig: panel.fieldConfig, theme, timeZone: "utc", replaceVariables: (s: string) => s } as Any);

function Inside({ panel, data, width, height }: Any) {
  if (!data.some((frame: Any) => frame.length)) return <div style={{ color: "#888" }}>No data</div>;
  if (panel.type === "table") return <Rows frame={data[0]} overrides={panel.fieldConfig.overrides ?? []} />;
  const shared = { timeZone: "utc", replaceVariables: (s: string) => s };
  if (panel.type === "timeseries") {
    const identity = (x: Any) => x;
    return <TimeSeries {...(shared as Any)} frames={data} timeRange={range} width={width} height={height} structureRev={1}
      legend={panel.options.legend} options={panel.options} tweakScale={identity} tweakAxis={identity}>{() => null}</TimeSeries>;
  }
  const reduceOptions = { calcs: ["lastNotNull"], values: false };
  const values = getFieldDisplayValues({ ...shared, fieldConfig: panel.fieldConfig, reduceOptions, theme, data } as Any);
  if (panel.type === "bargauge") {
    const each = Math.min(30, height / values.length - 4);
    return <>{values.map((value: Any, at: number) => <BarGauge key={at} width={width} height={each} value={value.display}
      field={value.field} theme={theme} orientation={"horizontal" as Any} displayMode={BarGaugeDisplayMode.Basic} />)}</>;
  }
  const display: Any = values[0].display;
  const shown = panel.options.textMode === "name" ? { ...display, text: display.title, prefix: "", suffix: "" } : display;
  return <BigValue width={width} height={height} value={{ ...shown, title: undefined }} theme={theme}
    colorMode={BigValueColorMode.Value} graphMode={BigValueGraphMode.None} justifyMode={BigValueJustifyMode.Auto}
    textMode={BigValueTextMode.Value} />;
}

function Rows({ frame, overrides }: Any) {
  const title = (field: Any) => field.config.displayName ?? field.name;
  const text = (field: Any, row: number) => {
    const value = field.values[row];
    if (value === undefined || value === null || field.type !== FieldType.number) return String(value ?? "");
    const override = overrides.find((each: Any) => each.matcher.options === title(field));
    const unit = override?.properties[0].value ?? field.config.unit;
    const shown = getDisplayProcessor({ field: { ...field, config: { ...field.config, unit } }, theme })(value);
    return `${shown.prefix ?? ""}${shown.text}${shown.suffix ?? ""}`;
  };
  const cell = { textAlign: "left", padding: 6, borderBottom: "1px solid #ddd", fontWeight: 400 } as const;
  return <table style={{ width: "100%", borderCollapse: "collapse" }}>
    <thead><tr>{frame.fields.map((field: Any) => <th key={title(field)} style={{ ...cell, color: "#1f62e0" }}>{title(field)}</th>)}</tr></thead>
    <tbody>{Array.from({ length: frame.length }, (_, row) =>
      <tr key={row}>{frame.fields.map((field: Any) => <td key={title(field)} style={cell}>{text(field, row)}</td>)}</tr>)}</tbody>
  </table>;
}

function Panel({ panel }: Any) {
  const { x = 0, y = 0, w, h } = panel.gridPos;
  const width = w * COLUMN - 8, height = h * ROW - 8;
  const [data, setData] = React.useState<Any[]>(panel.type === "table" ? [] : prepared(panel, framesOf(panel)));
  React.useEffect(() => {
    if (panel.type !== "table") return;
    transformDataFrame(panel.transformations, framesOf(panel)).subscribe((joined: Any) => setData(prepared(panel, joined)));
  }, []);
  return <div style={{ position: "absolute", left: x * COLUMN, top: y * ROW, width, height, padding: 8, overflow: "hidden",
    border: "1px solid #ddd", borderRadius: 3, background: "#fff" }}>
    <div style={{ fontWeight: 500, marginBottom: 4 }}>{panel.title}</div>
    <Inside panel={panel} data={data} width={width - 16} height={height - 40} />
  </div>;
}

const heading = (row: Any) =>
  <div key={row.title} style={{ position: "absolute", top: row.gridPos.y * ROW + 8, left: 4, fontWeight: 600 }}>{row.title}</div>;

createRoot(document.getElementById("root")!).render(
  <ThemeContext.Provider value={theme}>
    <div style={{ fontSize: 20, fontWeight: 500, marginBottom: 8 }}>{board.title}</div>
    <div style={{ position: "relative" }}>
      {board.panels.map((panel: Any) => (panel.type === "row" ? heading(panel) : <Panel key={panel.id} panel={panel} />))}
    </div>
  </ThemeContext.Provider>,
);
