// Curves of several runs on one axis: their value between points, and the mean of seeds with the 95 %
// interval of Student's t. Plain numbers; tested without a browser.

import { summary } from "../../common/student.ts";

export interface Point {
  x: number;
  y: number;
}

export interface BandPoint extends Point {
  low: number;
  high: number;
}

/** Value of a curve at x, linear between its points; undefined outside of them. */
export function valueAt(points: readonly Point[], x: number): number | undefined {
  if (points.length === 0 || x < points[0].x || x > points[points.length - 1].x) return undefined;
  let low = 0;
  let high = points.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (points[middle].x <= x) low = middle;
    else high = middle;
  }
  const [a, b] = [points[low], points[high]];
  return b.x > a.x ? a.y + (b.y - a.y) * (x - a.x) / (b.x - a.x) : b.y;
}

/**
 * Mean and interval of seeds where all of them have data: elsewhere a seed that began late or ended
 * early would move the mean by its absence. Empty for fewer than two seeds.
 */
export function meanBand(seeds: readonly (readonly Point[])[], steps = 150): BandPoint[] {
  if (seeds.length < 2 || seeds.some((points) => points.length === 0)) return [];
  const from = Math.max(...seeds.map((points) => points[0].x));
  const to = Math.min(...seeds.map((points) => points[points.length - 1].x));
  if (!(to > from)) return [];
  return Array.from({ length: steps + 1 }, (_, i) => {
    const x = i === steps ? to : from + (to - from) * i / steps;
    const { mean, ci95 } = summary(seeds.map((points) => valueAt(points, x)!));
    return { x, y: mean, low: mean - ci95, high: mean + ci95 };
  });
}
