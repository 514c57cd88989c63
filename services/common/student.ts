// Mean of a few values and how far to trust it: Student's interval.

/** Mean, sample standard deviation and half width of the 95 % interval; nan for a single value. */
export function summary(values: number[]): { mean: number; std: number; ci95: number } {
  const n = values.length;
  const mean = values.reduce((sum, value) => sum + value, 0) / n;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  const std = n > 1 ? Math.sqrt(squares / (n - 1)) : NaN;
  return { mean, std, ci95: n > 1 ? studentT975(n - 1) * std / Math.sqrt(n) : NaN };
}

/** For 1 to 9 degrees of freedom; the view learning_curves has the same and more of them. */
const fewDegrees = [
  12.706205,
  4.302653,
  3.182446,
  2.776445,
  2.570582,
  2.446912,
  2.364624,
  2.306004,
  2.262157,
];

/**
 * 97.5 % quantile of Student's t. From 10 degrees of freedom on the expansion of Cornish and Fisher in
 * 1/df (Abramowitz and Stegun 26.7.5) up to its fourth term, there exact to 1e-5.
 */
export function studentT975(df: number): number {
  if (df <= fewDegrees.length) return fewDegrees[df - 1];
  const z = 1.959963984540054;
  const [z3, z5, z7, z9] = [z ** 3, z ** 5, z ** 7, z ** 9];
  return z + (z3 + z) / 4 / df + (5 * z5 + 16 * z3 + 3 * z) / 96 / df ** 2 +
    (3 * z7 + 19 * z5 + 17 * z3 - 15 * z) / 384 / df ** 3 +
    (79 * z9 + 776 * z7 + 1482 * z5 - 1920 * z3 - 945 * z) / 92160 / df ** 4;
}
