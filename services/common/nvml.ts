// What the GPUs of this machine are doing, from NVIDIA's management library where there is one. It is
// loaded when first asked for; a machine without it has no GPU metrics, and nobody is told.
// Signatures: nvml.h of CUDA 12 (NVML API version 12), which keeps them since version 5.

import type { Measured } from "./metrics.ts";

const symbols = {
  nvmlInit_v2: { parameters: [], result: "i32" },
  nvmlDeviceGetCount_v2: { parameters: ["buffer"], result: "i32" },
  nvmlDeviceGetHandleByIndex_v2: { parameters: ["u32", "buffer"], result: "i32" },
  nvmlDeviceGetUUID: { parameters: ["pointer", "buffer", "u32"], result: "i32" },
  nvmlDeviceGetName: { parameters: ["pointer", "buffer", "u32"], result: "i32" },
  nvmlDeviceGetMemoryInfo: { parameters: ["pointer", "buffer"], result: "i32" },
  nvmlDeviceGetUtilizationRates: { parameters: ["pointer", "buffer"], result: "i32" },
} as const;

interface Gpu {
  handle: Deno.PointerValue;
  attributes: { "hw.id": string; "hw.name": string; "hw.type": "gpu"; "hw.vendor": "NVIDIA" };
}

export class Nvml {
  private constructor(
    private readonly library: Deno.DynamicLibrary<typeof symbols>["symbols"],
    readonly gpus: readonly Gpu[],
  ) {}

  /** Undefined where the library or a driver is missing. */
  static open(path = "libnvidia-ml.so.1"): Nvml | undefined {
    let library: Deno.DynamicLibrary<typeof symbols>["symbols"];
    try {
      library = Deno.dlopen(path, symbols).symbols;
    } catch {
      return undefined;
    }
    const count = new Uint32Array(1);
    if (library.nvmlInit_v2() !== 0 || library.nvmlDeviceGetCount_v2(count) !== 0) return undefined;
    const gpus: Gpu[] = [];
    for (let index = 0; index < count[0]; index++) {
      const out = new BigUint64Array(1);
      if (library.nvmlDeviceGetHandleByIndex_v2(index, out) !== 0) continue;
      const handle = Deno.UnsafePointer.create(out[0]);
      const text = (read: (buffer: Uint8Array<ArrayBuffer>) => number) => {
        const buffer = new Uint8Array(96); // NVML_DEVICE_UUID_V2_BUFFER_SIZE, and that of names
        if (read(buffer) !== 0) return "";
        return new TextDecoder().decode(buffer.subarray(0, buffer.indexOf(0)));
      };
      gpus.push({
        handle,
        attributes: {
          "hw.id": text((buffer) => library.nvmlDeviceGetUUID(handle, buffer, 96)),
          "hw.name": text((buffer) => library.nvmlDeviceGetName(handle, buffer, 96)),
          "hw.type": "gpu",
          "hw.vendor": "NVIDIA",
        },
      });
    }
    return new Nvml(library, gpus);
  }

  /** A GPU that refuses an answer (a driver that is reset) is left out of it. */
  measure(): Measured[] {
    const measured: Measured[] = [];
    for (const { handle, attributes } of this.gpus) {
      const gauge = (name: string, unit: string, value: number) =>
        measured.push({ name, unit, kind: "gauge", value, attributes });
      const memory = new BigUint64Array(3); // nvmlMemory_t: total, free, used, bytes
      if (this.library.nvmlDeviceGetMemoryInfo(handle, memory) === 0) {
        gauge("hw.gpu.memory.limit", "By", Number(memory[0]));
        gauge("hw.gpu.memory.usage", "By", Number(memory[2]));
        gauge("hw.gpu.memory.utilization", "1", Number(memory[2]) / Number(memory[0]));
      }
      const busy = new Uint32Array(2); // nvmlUtilization_t: gpu, memory, percent of the last second
      if (this.library.nvmlDeviceGetUtilizationRates(handle, busy) === 0) {
        gauge("hw.gpu.utilization", "1", busy[0] / 100);
      }
    }
    return measured;
  }
}
