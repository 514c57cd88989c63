// Numbers, times and bytes as a person reads them, and the small pictures made of characters.

/** Four significant digits at most: 12345.6 -> "12346", 0.012345 -> "0.01235". */
export function number(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  if (Math.abs(value) >= 1000) return value.toFixed(0);
  if (Math.abs(value) >= 100) return value.toFixed(1);
  if (Math.abs(value) >= 1) return value.toFixed(2);
  return String(Number(value.toPrecision(4)));
}

/** With a metric prefix: 1234567 -> "1.23 M". */
export function metric(value: number): string {
  for (const [factor, prefix] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]] as const) {
    if (Math.abs(value) >= factor) return `${(value / factor).toPrecision(3)} ${prefix}`;
  }
  return value.toFixed(0);
}

export function megabytes(bytes: number): string {
  return `${Math.round(bytes / 1e6)} MB`;
}

/** "1:02:03" or "2:03". */
export function duration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const two = (value: number) => String(value).padStart(2, "0");
  return h > 0 ? `${h}:${two(m)}:${two(s)}` : `${m}:${two(s)}`;
}

const blocks = "▁▂▃▄▅▆▇█";

/** Values as a line of `width` bars; several values share a bar by their mean. */
export function sparkline(values: readonly number[], width: number): string {
  const finite = values.filter(Number.isFinite);
  if (finite.length === 0 || width < 1) return "";
  const columns = Math.min(width, finite.length);
  const means = Array.from({ length: columns }, (_, i) => {
    const from = Math.floor(i * finite.length / columns);
    const to = Math.max(from + 1, Math.floor((i + 1) * finite.length / columns));
    return finite.slice(from, to).reduce((sum, value) => sum + value, 0) / (to - from);
  });
  const low = Math.min(...means);
  const high = Math.max(...means);
  return means.map((value) => {
    const level = high === low ? 0 : Math.round((value - low) / (high - low) * (blocks.length - 1));
    return blocks[level];
  }).join("");
}

/** Rows as columns: text to the left, numbers (cells that begin with a digit or sign) to the right. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((name, column) =>
    Math.max(name.length, ...rows.map((row) => row[column].length))
  );
  const numeric = header.map((_, column) =>
    rows.length > 0 && rows.every((row) => /^[-+]?\d|^$|^-$/.test(row[column]))
  );
  const line = (cells: readonly string[]) =>
    cells.map((cell, column) =>
      numeric[column] ? cell.padStart(widths[column]) : cell.padEnd(widths[column])
    ).join("  ").trimEnd();
  return [line(header), ...rows.map(line)].join("\n");
}
