import { expect, test } from "vitest";
import { Histogram } from "./metrics.ts";
import { encodeMetric } from "./otlp.ts";
import { Nvml } from "./nvml.ts";

test("Histogram counts a value on a bound below it, and attributes apart", () => {
  const histogram = new Histogram("rpc.client.call.duration", "s", [1, 2]);
  for (const value of [0.5, 1, 1.5, 7]) histogram.record(value, { "rpc.method": "a" });
  histogram.record(2, { "rpc.method": "b" });
  const { name, unit, bounds, distributions } = histogram;
  const times = { startMs: 1000.5, timeMs: 2000 };
  const json = JSON.parse(
    encodeMetric({ kind: "histogram", name, unit, bounds, distributions, ...times }),
  );
  const point = (method: string) => ({
    startTimeUnixNano: "1000500000",
    timeUnixNano: "2000000000",
    attributes: [{ key: "rpc.method", value: { stringValue: method } }],
    explicitBounds: [1, 2],
  });
  expect(json).toEqual({
    name: "rpc.client.call.duration",
    unit: "s",
    histogram: {
      aggregationTemporality: 2,
      dataPoints: [
        { ...point("a"), count: "4", sum: 10, min: 0.5, max: 7, bucketCounts: ["2", "1", "1"] },
        { ...point("b"), count: "1", sum: 2, min: 2, max: 2, bucketCounts: ["0", "1", "0"] },
      ],
    },
  });
});

test("Nvml measures every GPU, and leaves out what one will not tell", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const source = new URL("nvml_for_tests.c", import.meta.url).pathname;
    const library = `${directory}/libnvidia-ml.so.1`;
    const compiled = await new Deno.Command("cc", {
      args: ["-shared", "-fPIC", "-o", library, source],
    }).output();
    expect(compiled.success).toBe(true);
    const measured = Nvml.open(library)!.measure();
    const gpu = (id: string) => ({
      ...{ "hw.id": id, "hw.name": "NVIDIA H200", "hw.type": "gpu", "hw.vendor": "NVIDIA" },
    });
    const gauge = (name: string, unit: string, value: number, id: string) =>
      ({ name, unit, kind: "gauge", value, attributes: gpu(id) }) as const;
    const memory = (id: string) => [
      gauge("hw.gpu.memory.limit", "By", 1000, id),
      gauge("hw.gpu.memory.usage", "By", 250, id),
      gauge("hw.gpu.memory.utilization", "1", 0.25, id),
    ];
    expect(measured).toEqual([
      ...memory("GPU-a"),
      gauge("hw.gpu.utilization", "1", 0.4, "GPU-a"),
      ...memory("GPU-b"),
    ]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

test("Nvml is undefined without the library", () => {
  expect(Nvml.open("libnvidia-ml-that-is-not-there.so")).toBeUndefined();
});
