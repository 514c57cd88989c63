// Rotations and directions as expressions. Quaternions are unit, (w, x, y, z), and turn what is
// given in the frame they describe into the world; vectors have length 3.
import {
  concat,
  constant,
  type Expression,
  expression,
  TaskError,
  type Value,
} from "./expression.ts";

/** a × b. */
export function cross(a: Value, b: Value): Expression {
  const [u, v] = [sized("cross", a, 3), sized("cross", b, 3)];
  const after = (e: Expression, turns: number) =>
    concat(...[0, 1, 2].map((i) => e.at((i + turns) % 3)));
  return after(u, 1).mul(after(v, 2)).sub(after(u, 2).mul(after(v, 1)));
}

/** A vector of the quaternion's frame, in the world's axes. */
export function rotate(quaternion: Value, vector: Value): Expression {
  const q = sized("rotate", quaternion, 4);
  const v = sized("rotate", vector, 3);
  // v + 2 w (u × v) + 2 u × (u × v), u the quaternion's vector part.
  const u = q.slice(1);
  const twice = cross(u, v).mul(2);
  return v.add(twice.mul(q.at(0))).add(cross(u, twice));
}

/** A vector of the world, in the axes of the quaternion's frame. */
export function rotateBack(quaternion: Value, vector: Value): Expression {
  return rotate(conjugate(quaternion), vector);
}

/** The opposite turn. */
export function conjugate(quaternion: Value): Expression {
  const q = sized("conjugate", quaternion, 4);
  return concat(q.at(0), q.slice(1).neg());
}

/** First `second`, then `first`, as matrices multiply. */
export function multiplyQuaternions(first: Value, second: Value): Expression {
  const a = sized("multiplyQuaternions", first, 4);
  const b = sized("multiplyQuaternions", second, 4);
  const [u, v] = [a.slice(1), b.slice(1)];
  const vector = v.mul(a.at(0)).add(u.mul(b.at(0))).add(cross(u, v));
  return concat(a.at(0).mul(b.at(0)).sub(u.dot(v)), vector);
}

/** The turn about a unit axis by an angle in radians. */
export function turn(axis: Value, angle: Value): Expression {
  const half = sized("turn", angle, 1).mul(0.5);
  return concat(half.cos(), sized("turn", axis, 3).mul(half.sin()));
}

/** The x axis of the quaternion's frame, in the world. */
export function xAxis(quaternion: Value): Expression {
  const [w, x, y, z] = elements(quaternion, "xAxis");
  return concat(
    y.square().add(z.square()).mul(-2).add(1),
    x.mul(y).add(w.mul(z)).mul(2),
    x.mul(z).sub(w.mul(y)).mul(2),
  );
}

/** The y axis of the quaternion's frame, in the world. */
export function yAxis(quaternion: Value): Expression {
  const [w, x, y, z] = elements(quaternion, "yAxis");
  return concat(
    x.mul(y).sub(w.mul(z)).mul(2),
    x.square().add(z.square()).mul(-2).add(1),
    y.mul(z).add(w.mul(x)).mul(2),
  );
}

/** The z axis of the quaternion's frame, in the world; its third element is 1 when upright. */
export function zAxis(quaternion: Value): Expression {
  const [w, x, y, z] = elements(quaternion, "zAxis");
  return concat(
    x.mul(z).add(w.mul(y)).mul(2),
    y.mul(z).sub(w.mul(x)).mul(2),
    x.square().add(y.square()).mul(-2).add(1),
  );
}

/** The vector at length 1; one shorter than 1e-6 is divided by that instead. */
export function normalised(vector: Value): Expression {
  const v = expression(vector);
  return v.div(v.norm().max(1e-6));
}

/** The point of the unit sphere at height `z` in [-1, 1] and at an angle around the z axis, rad. */
export function onSphere(z: Value, angle: Value): Expression {
  const height = sized("onSphere", z, 1);
  const around = sized("onSphere", angle, 1);
  const radius = constant(1).sub(height.square()).max(0).sqrt();
  return concat(radius.mul(around.cos()), radius.mul(around.sin()), height);
}

function elements(quaternion: Value, what: string): Expression[] {
  const q = sized(what, quaternion, 4);
  return [0, 1, 2, 3].map((i) => q.at(i));
}

function sized(what: string, value: Value, length: number): Expression {
  const result = expression(value);
  if (result.length !== length) {
    throw new TaskError(`${what}: expected length ${length}, got ${result.length}`);
  }
  return result;
}
