// The physics core of gpu-sim called in-process through its C boundary (gpu-sim/include/gpu_sim.h).
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { toBinary } from "@bufbuild/protobuf";
import { type Model, ModelSchema } from "@proto/sdpg/model/v1/model_pb.ts";
import type { ParameterField } from "@proto/sdpg/task/v1/task_pb.ts";

// Another build of it can be tested: SDPG_GPU_SIM_LIBRARY, see `./sdpg test sanitize`.
const libraryPath = Deno.env.get("SDPG_GPU_SIM_LIBRARY") ||
  fileURLToPath(new URL("../../build/gpu-sim/libgpu_sim.so", import.meta.url));

const symbols = {
  gpu_sim_physics_create: {
    parameters: ["buffer", "usize", "i32", "i32", "i32", "buffer", "buffer", "buffer", "usize"],
    result: "i32",
  },
  gpu_sim_physics_create_with: {
    parameters: [
      "buffer",
      "usize",
      "buffer",
      "i32",
      "i32",
      "i32",
      "i32",
      "buffer",
      "buffer",
      "buffer",
      "usize",
    ],
    result: "i32",
  },
  gpu_sim_physics_na: { parameters: ["pointer"], result: "i32" },
  gpu_sim_physics_set_act: { parameters: ["pointer", "buffer"], result: "void" },
  gpu_sim_physics_get_act: { parameters: ["pointer", "buffer"], result: "void" },
  gpu_sim_physics_set_parameters: { parameters: ["pointer", "buffer"], result: "void" },
  gpu_sim_physics_destroy: { parameters: ["pointer"], result: "void" },
  gpu_sim_physics_sizes: { parameters: ["pointer", "buffer"], result: "void" },
  gpu_sim_physics_set: { parameters: ["pointer", "buffer", "buffer", "buffer"], result: "void" },
  gpu_sim_physics_set_ctrl: { parameters: ["pointer", "buffer"], result: "void" },
  gpu_sim_physics_get: { parameters: ["pointer", "buffer", "buffer"], result: "void" },
  gpu_sim_physics_step: { parameters: ["pointer", "i32"], result: "void" },
  gpu_sim_physics_forward: {
    parameters: ["pointer", "buffer", "buffer", "buffer", "buffer", "buffer"],
    result: "void",
  },
  gpu_sim_physics_status: { parameters: ["pointer", "buffer"], result: "void" },
} as const;

/** libgpu_sim.so; says what to do where it has not been built. */
export function loadLibrary<S extends Deno.ForeignLibraryInterface>(symbols: S) {
  if (!existsSync(libraryPath)) {
    throw new Error(
      `${libraryPath} is missing: build it with ./sdpg, or cmake as in gpu-sim/CMakeLists.txt`,
    );
  }
  return Deno.dlopen(libraryPath, symbols).symbols;
}

/** Numbers of one contact: dist, pos[3], frame[9], geom1, geom2, force[6] in the frame. */
const CONTACT_NUMBERS = 21;

export interface Contact {
  /** Negative inside, m. */
  dist: number;
  pos: number[];
  /** Rows: normal, then the two tangents, in the world. */
  frame: number[];
  geoms: [number, number];
  /** Along the normal and the tangents, N, then about them, N m. */
  force: number[];
}

export interface Forward {
  qacc: number[];
  qaccSmooth: number[];
  qfrcConstraint: number[];
  contacts: Contact[];
}

/** State after a step. */
export interface Next {
  qpos: number[];
  qvel: number[];
  act: number[];
}

/** A number of environments of one model; arrays are [environment][index], in double. */
export class Core {
  readonly nq: number;
  readonly nv: number;
  readonly nu: number;
  /** Activations of actuators. */
  readonly na: number;
  private readonly maxContacts: number;
  private readonly lib = loadLibrary(symbols);
  private readonly handle: Deno.PointerValue;

  constructor(
    model: Model,
    readonly environments: number,
    precision: "float32" | "float64",
    isa = "",
    threads = 1,
    /** Constants of which each environment has its own: fields (sdpg.task.v1) and elements. */
    private readonly slots: { field: ParameterField; index: number }[] = [],
  ) {
    const bytes = toBinary(ModelSchema, model);
    const out = new BigUint64Array(1);
    const error = new Uint8Array(512);
    const status = this.lib.gpu_sim_physics_create_with(
      bytes as Uint8Array<ArrayBuffer>,
      BigInt(bytes.length),
      Int32Array.from(slots.flatMap(({ field, index }) => [field, index])),
      slots.length,
      environments,
      precision === "float32" ? 4 : 8,
      threads,
      new TextEncoder().encode(`${isa}\0`),
      out,
      error,
      BigInt(error.length),
    );
    if (status !== 0) {
      const line = new TextDecoder().decode(error.subarray(0, error.indexOf(0)));
      throw new Error(`gpu_sim_physics_create: status ${status}: ${line}`);
    }
    this.handle = Deno.UnsafePointer.create(out[0]);
    const sizes = new Int32Array(8);
    this.lib.gpu_sim_physics_sizes(this.handle, sizes);
    [this.nq, this.nv, this.nu, , this.maxContacts] = sizes;
    this.na = this.lib.gpu_sim_physics_na(this.handle);
  }

  [Symbol.dispose](): void {
    this.lib.gpu_sim_physics_destroy(this.handle);
  }

  /** Also zeroes the warm start, and the activations where none are given. */
  set(qpos: number[][], qvel: number[][], ctrl: number[][], act: number[][] = []): void {
    this.lib.gpu_sim_physics_set(
      this.handle,
      Float64Array.from(qpos.flat()),
      Float64Array.from(qvel.flat()),
      Float64Array.from(ctrl.flat()),
    );
    if (act.flat().length > 0) this.setAct(act);
  }

  setCtrl(ctrl: number[][]): void {
    this.lib.gpu_sim_physics_set_ctrl(this.handle, Float64Array.from(ctrl.flat()));
  }

  setAct(act: number[][]): void {
    this.lib.gpu_sim_physics_set_act(this.handle, Float64Array.from(act.flat()));
  }

  getAct(): number[][] {
    const act = new Float64Array(this.environments * this.na).fill(NaN);
    this.lib.gpu_sim_physics_get_act(this.handle, act);
    return rows(act, this.na);
  }

  /** [environment][slot], absolute values. */
  setParameters(values: number[][]): void {
    if (values.some((row) => row.length !== this.slots.length)) {
      throw new Error(`setParameters: expected ${this.slots.length} values an environment`);
    }
    this.lib.gpu_sim_physics_set_parameters(this.handle, Float64Array.from(values.flat()));
  }

  get(): Next[] {
    const qpos = new Float64Array(this.environments * this.nq).fill(NaN);
    const qvel = new Float64Array(this.environments * this.nv).fill(NaN);
    this.lib.gpu_sim_physics_get(this.handle, qpos, qvel);
    const velocities = rows(qvel, this.nv);
    const activations = this.na > 0 ? this.getAct() : velocities.map(() => []);
    return rows(qpos, this.nq).map((row, e) => ({
      qpos: row,
      qvel: velocities[e],
      act: activations[e],
    }));
  }

  step(substeps: number): void {
    this.lib.gpu_sim_physics_step(this.handle, substeps);
  }

  forward(): Forward[] {
    const { environments: n, nv, maxContacts } = this;
    const dofs = () => new Float64Array(n * nv).fill(NaN);
    const [qacc, qaccSmooth, qfrcConstraint] = [dofs(), dofs(), dofs()];
    const contacts = new Float64Array(n * maxContacts * CONTACT_NUMBERS).fill(NaN);
    const counts = new Int32Array(n).fill(-1);
    this.lib.gpu_sim_physics_forward(
      this.handle,
      qacc,
      qaccSmooth,
      qfrcConstraint,
      contacts,
      counts,
    );
    const perContact = rows(contacts, CONTACT_NUMBERS);
    return rows(qacc, nv).map((acceleration, e) => ({
      qacc: acceleration,
      qaccSmooth: rows(qaccSmooth, nv)[e],
      qfrcConstraint: rows(qfrcConstraint, nv)[e],
      contacts: perContact.slice(e * maxContacts, e * maxContacts + counts[e]).map((c) => ({
        dist: c[0],
        pos: c.slice(1, 4),
        frame: c.slice(4, 13),
        geoms: [c[13], c[14]],
        force: c.slice(15, 21),
      })),
    }));
  }

  /** Status bits of each environment (core/kernels.h). */
  status(): number[] {
    const bits = new Uint32Array(this.environments).fill(0xffffffff);
    this.lib.gpu_sim_physics_status(this.handle, bits);
    return Array.from(bits);
  }
}

/** [environment][index] of a flat array. */
function rows(flat: Float64Array, width: number): number[][] {
  return Array.from(
    { length: flat.length / width },
    (_, e) => Array.from(flat.subarray(e * width, (e + 1) * width)),
  );
}

/** Instruction sets of this machine that the core has kernels for. */
export function instructionSets(model: Model): string[] {
  return ["generic", "emulated", "avx2", "avx512"].filter((isa) => {
    try {
      new Core(model, 1, "float32", isa)[Symbol.dispose]();
      return true;
    } catch {
      return false;
    }
  });
}
