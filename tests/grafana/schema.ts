// Checks the committed dashboards against the types of Grafana's own schema; test_schema.py adds them below.
import type { Dashboard } from "@grafana/schema";

// JSON has the values of an enum, not its names.
type Plain<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends (infer E)[]
      ? Plain<E>[]
      : T extends object
        ? { [K in keyof T]: Plain<T[K]> }
        : T;
