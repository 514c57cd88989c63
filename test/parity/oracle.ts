// MuJoCo itself (the JavaScript build) as the oracle: the same MJCF, its Newton solver run until
// nothing improves any more, and a check that it really has converged.
import { type LoadedModel, loadMjcf, type ModelError } from "@sdpg/common/model/compile.ts";
import type { MjData, MjModel, Mujoco } from "@sdpg/common/model/mujoco.ts";
import type { Contact, Forward, Next } from "./core.ts";

export type { ModelError };

export class Oracle {
  private readonly data: MjData;
  readonly nq: number;
  readonly nv: number;
  readonly nu: number;

  private constructor(private readonly mujoco: Mujoco, private readonly model: MjModel) {
    // With tolerance 0 it stops when nothing improves or at the limit; measured here, the gradient
    // is at rounding level well before 30 iterations of our robots and 100 of random models.
    model.opt.tolerance = 0;
    model.opt.iterations = 200;
    model.opt.ls_iterations = 100;
    model.opt.jacobian = mujoco.mjtJacobian.mjJAC_DENSE.value;
    this.data = new mujoco.MjData(model);
    [this.nq, this.nv, this.nu] = [model.nq, model.nv, model.nu];
  }

  /** s. */
  get timestep(): number {
    return this.model.opt.timestep;
  }

  static async load(mjcfPath: string): Promise<Oracle> {
    return Oracle.of(await loadMjcf(mjcfPath));
  }

  /** Takes over the model and frees it in the end. */
  static of({ mujoco, model }: LoadedModel): Oracle {
    return new Oracle(mujoco, model);
  }

  [Symbol.dispose](): void {
    this.data.delete();
    this.model.delete();
  }

  /** Sets the state and zeroes the warm start. */
  set(qpos: number[], qvel: number[], ctrl: number[], act: number[] = []): void {
    this.mujoco.mj_resetData(this.model, this.data);
    this.data.qpos.set(qpos);
    this.data.qvel.set(qvel);
    this.data.ctrl.set(ctrl);
    this.data.act.set(act);
  }

  setCtrl(ctrl: number[]): void {
    this.data.ctrl.set(ctrl);
  }

  get(): Next {
    return {
      qpos: Array.from(this.data.qpos),
      qvel: Array.from(this.data.qvel),
      act: Array.from(this.data.act),
    };
  }

  step(): void {
    this.mujoco.mj_step(this.model, this.data);
  }

  /** Lets the robot come to rest, with the solver as the model file has it; not for comparisons. */
  settle(steps: number): void {
    const { tolerance } = this.model.opt;
    this.model.opt.tolerance = 1e-8;
    for (let t = 0; t < steps; t++) this.step();
    this.model.opt.tolerance = tolerance;
  }

  /** Accelerations and forces at the present state. */
  forward(): Forward {
    this.mujoco.mj_forward(this.model, this.data);
    return {
      qacc: Array.from(this.data.qacc),
      qaccSmooth: Array.from(this.data.qacc_smooth),
      qfrcConstraint: Array.from(this.data.qfrc_constraint),
      contacts: this.contacts(),
    };
  }

  /** The largest generalised force at the last `forward` that no constraint exerts. */
  largestForce(): number {
    const { qfrc_bias, qfrc_passive, qfrc_actuator } = this.data;
    return Math.max(
      ...[qfrc_bias, qfrc_passive, qfrc_actuator].flatMap((f) =>
        Array.from(f as Float64Array, Math.abs)
      ),
    );
  }

  /** Applies a generalised force in the next `forward` or `step` after `set`. */
  push(force: number[]): void {
    this.data.qfrc_applied.set(force);
  }

  /**
   * Moves the model's masses, lengths and inertias by about `size` of each, up or down as `sign`
   * says, while `work` runs.
   */
  disturbed<T>(size: number, sign: () => number, work: () => T): T {
    const { model } = this;
    const lengths = [
      model.body_pos,
      model.body_ipos,
      model.jnt_pos,
      model.geom_pos,
      model.geom_size,
      model.qpos0,
    ] as Float64Array[];
    const ratios = [model.body_mass, model.body_inertia, model.jnt_axis] as Float64Array[];
    const armature = model.dof_armature as Float64Array;
    const arrays = [...lengths, ...ratios, armature];
    const kept = arrays.map((array) => array.slice());
    for (const array of lengths) array.forEach((x, i) => array[i] = x + size * sign());
    for (const array of ratios) array.forEach((x, i) => array[i] = x * (1 + size * sign()));
    // As a rounding of the diagonal of the mass matrix.
    const diagonal = model.dof_M0 as Float64Array;
    armature.forEach((x, i) => armature[i] = x + size * sign() * diagonal[i]);
    try {
      return work();
    } finally {
      arrays.forEach((array, i) => array.set(kept[i]));
    }
  }

  /** Limits that push at the present state, as "limit" followed by the joint's number. */
  activeLimits(): string[] {
    const limit = this.mujoco.mjtConstraint.mjCNSTR_LIMIT_JOINT.value;
    const { efc_type, efc_id, nefc } = this.data;
    return Array.from({ length: nefc }, (_, i) => i).filter((i) => efc_type[i] === limit)
      .map((i) => `limit ${efc_id[i]}`);
  }

  /**
   * The largest generalised constraint force if no two contributions cancelled: max over degrees of
   * freedom of Σ |J||f|, in N or N m. A sum cannot be more exact than its terms.
   */
  terms(): number {
    const { nv } = this;
    const { nefc, efc_J, efc_force } = this.data;
    const sums = new Float64Array(nv);
    for (let r = 0; r < nefc; r++) {
      for (let i = 0; i < nv; i++) sums[i] += Math.abs(efc_J[r * nv + i] * efc_force[r]);
    }
    return Math.max(0, ...sums);
  }

  /**
   * How far the solver is from the optimum at the last `forward`: the largest component of the
   * gradient M(qacc − qacc_smooth) − Jᵀf, over the largest of the generalised forces in it or of their terms.
   */
  residual(): number {
    const { nv } = this;
    const difference = Array.from(
      { length: nv },
      (_, i) => this.data.qacc[i] - this.data.qacc_smooth[i],
    );
    const product = new this.mujoco.DoubleBuffer(nv);
    try {
      this.mujoco.mj_mulM(this.model, this.data, product, difference);
      const inertial = Array.from(product.GetView() as Float64Array);
      const gradient = inertial.map((f, i) => Math.abs(f - this.data.qfrc_constraint[i]));
      const largest = Math.max(
        1,
        this.terms(),
        ...Array.from(this.data.qfrc_constraint as Float64Array, Math.abs),
        ...Array.from(this.data.qfrc_bias as Float64Array, Math.abs),
      );
      return Math.max(...gradient) / largest;
    } finally {
      product.delete();
    }
  }

  /** The configuration reached from `qpos` in `seconds` at the velocity `qvel`. */
  moved(qpos: number[], qvel: number[], seconds: number): number[] {
    const next = new this.mujoco.DoubleBuffer(this.nq);
    try {
      next.GetView().set(qpos);
      this.mujoco.mj_integratePos(this.model, next, qvel, seconds);
      return Array.from(next.GetView() as Float64Array);
    } finally {
      next.delete();
    }
  }

  /** What a motion carries: energy in J, momentum in N s, spin about the centre of mass in N m s. */
  carried(qpos: number[], qvel: number[]) {
    this.set(qpos, qvel, Array(this.nu).fill(0));
    this.mujoco.mj_forward(this.model, this.data);
    this.mujoco.mj_energyPos(this.model, this.data);
    this.mujoco.mj_energyVel(this.model, this.data);
    this.mujoco.mj_subtreeVel(this.model, this.data);
    const mass = this.mujoco.mj_getTotalmass(this.model);
    const { energy, subtree_linvel, subtree_angmom, subtree_com } = this.data;
    return {
      energy: energy[0] + energy[1],
      momentum: Array.from(subtree_linvel.subarray(0, 3) as Float64Array, (v) => mass * v),
      spin: Array.from(subtree_angmom.subarray(0, 3) as Float64Array),
      centre: Array.from(subtree_com.subarray(0, 3) as Float64Array),
    };
  }

  /** Generalised forces of motors and dampers at the last `forward`. */
  driven(): number[] {
    const { qfrc_actuator, qfrc_damper } = this.data;
    return Array.from(qfrc_actuator as Float64Array, (f, i) => f + qfrc_damper[i]);
  }

  /** Position and quaternion of every body at a configuration, [nbody, 7]: what a renderer gets. */
  poses(qpos: number[]): Float32Array<ArrayBuffer> {
    this.set(qpos, Array(this.nv).fill(0), Array(this.nu).fill(0));
    this.mujoco.mj_kinematics(this.model, this.data);
    const { xpos, xquat } = this.data;
    return Float32Array.from({ length: 7 * this.model.nbody }, (_, i) => {
      const [body, k] = [Math.floor(i / 7), i % 7];
      return k < 3 ? xpos[3 * body + k] : xquat[4 * body + k - 3];
    });
  }

  /** Height of the lowest point of the colliding capsules and spheres at a configuration. */
  lowestPoint(qpos: number[]): number {
    this.set(qpos, Array(this.nv).fill(0), Array(this.nu).fill(0));
    this.mujoco.mj_kinematics(this.model, this.data);
    const { geom_xpos, geom_xmat } = this.data;
    let lowest = Infinity;
    for (let g = 0; g < this.model.ngeom; g++) {
      const collides = this.model.geom_contype[g] !== 0 || this.model.geom_conaffinity[g] !== 0;
      if (this.model.geom_bodyid[g] === 0 || !collides) continue;
      const radius = this.model.geom_size[3 * g];
      const half = this.model.geom_type[g] === 3 ? this.model.geom_size[3 * g + 1] : 0;
      const axisDown = Math.abs(geom_xmat[9 * g + 8]);
      lowest = Math.min(lowest, geom_xpos[3 * g + 2] - half * axisDown - radius);
    }
    return lowest;
  }

  private contacts(): Contact[] {
    const list = this.data.contact;
    const force = new this.mujoco.DoubleBuffer(6);
    try {
      return Array.from({ length: list.size() }, (_, i) => {
        const contact = list.get(i)!;
        // The core leaves out what exerts nothing, within the gap, and what cannot move anything.
        const [body1, body2] = [contact.geom1, contact.geom2].map((g) =>
          this.model.body_weldid[this.model.geom_bodyid[g]]
        );
        if (contact.exclude !== 0 || body1 === body2) {
          contact.delete();
          return [];
        }
        this.mujoco.mj_contactForce(this.model, this.data, i, force);
        const result: Contact = {
          dist: contact.dist,
          pos: Array.from(contact.pos as Float64Array),
          frame: Array.from(contact.frame as Float64Array),
          geoms: [contact.geom1, contact.geom2],
          force: Array.from(force.GetView() as Float64Array),
        };
        contact.delete();
        return [result];
      }).flat();
    } finally {
      force.delete();
      list.delete();
    }
  }
}
