// Narrow phase of convex shapes without a closed form, one lane at a time, in double precision
// whatever the pipeline's (few pairs need it, and depths are small differences of large numbers).
//
// The signed distance of shapes A and B is the largest separation over all directions n,
//
//   d = max over |n| = 1 of  min over b in B of n.b  -  max over a in A of n.a,
//
// positive apart, negative inside, and the n where it is reached is the contact's normal. To have
// one method for both signs, A - B is rounded by a ball so large that every pair worth reporting
// overlaps. A simplex that encloses the origin is found first (Gilbert, Johnson and Keerthi), then
// expanded towards the boundary nearest to the origin (van den Bergen's expanding polytope), which
// finds the right part of the boundary; Newton's method on the support functions finds the point
// there, to rounding. Support functions are smooth except where n is orthogonal to an edge; since
// the optimum often lies on such a kink, the search is also made along every kink nearby.
//
// MuJoCo's own solver stops at ccd_tolerance 1e-6. How many touches flat contacts are given follows
// it.
#pragma once

#include "core/collision_shapes.h"

namespace sdpg::core {
SDPG_ISA_BEGIN

using Vec3d = Vec3<double>;

enum class Form { kPoint, kSegment, kEllipsoid, kCylinder, kBox, kPrism };

// A shape is its form plus a ball of `radius`: a sphere is a point, a capsule a segment.
struct Convex {
  Form form;
  Vec3d position;
  double matrix[9];  // row-major, to the world
  double size[3];    // segment: half length third; cylinder: radius, half length; else semi-axes
  double radius;
  double bound;     // radius of a sphere around it
  Vec3d corner[6];  // of a prism: three on top, then the three below them
};

inline constexpr int kConvexTouches = 5;
// Most corners of a face (a disc is taken as a polygon of 16) and of one face cut by another.
inline constexpr int kDiscCorners = 16, kCutCorners = 40;

SDPG_INLINE Vec3d negative(const Vec3d& a) { return {-a.x, -a.y, -a.z}; }
SDPG_INLINE Vec3d unit(const Vec3d& a) { return a * (1 / length(a)); }

// ---- support functions
// ----------------------------------------------------------------------------

// The point of the form farthest along n.
SDPG_RARE Vec3d support(const Convex& c, const Vec3d& n) {
  if (c.form == Form::kPoint) return c.position;
  if (c.form == Form::kPrism) {
    int best = 0;
    for (int i = 1; i < 6; ++i)
      if (dot(c.corner[i], n) > dot(c.corner[best], n)) best = i;
    return c.corner[best];
  }
  const Vec3d u = rotate_back(c.matrix, n);
  Vec3d local{0, 0, 0};
  switch (c.form) {
    case Form::kSegment:
      local.z = u.z >= 0 ? c.size[2] : -c.size[2];
      break;
    case Form::kEllipsoid: {
      const Vec3d scaled = {c.size[0] * u.x, c.size[1] * u.y, c.size[2] * u.z};
      const double inverse = 1 / length(scaled);
      local = {c.size[0] * scaled.x * inverse, c.size[1] * scaled.y * inverse,
               c.size[2] * scaled.z * inverse};
      break;
    }
    case Form::kCylinder: {
      const double aside = scalar_sqrt(u.x * u.x + u.y * u.y);
      if (aside > 1e-15) {
        local.x = c.size[0] * u.x / aside;
        local.y = c.size[0] * u.y / aside;
      }
      local.z = u.z >= 0 ? c.size[1] : -c.size[1];
      break;
    }
    default:
      local = {u.x >= 0 ? c.size[0] : -c.size[0], u.y >= 0 ? c.size[1] : -c.size[1],
               u.z >= 0 ? c.size[2] : -c.size[2]};
  }
  return c.position + rotate(c.matrix, local);
}

// s' H t with H the second derivative of the support function at n, away from kinks.
SDPG_FN double support_curvature(const Convex& c, const Vec3d& n, const Vec3d& s, const Vec3d& t) {
  if (c.form != Form::kEllipsoid && c.form != Form::kCylinder) return 0;
  const Vec3d u = rotate_back(c.matrix, n), a = rotate_back(c.matrix, s),
              b = rotate_back(c.matrix, t);
  if (c.form == Form::kCylinder) {
    const double square = u.x * u.x + u.y * u.y;
    if (square < 1e-20) return 0;
    const double along = (a.x * u.x + a.y * u.y) * (b.x * u.x + b.y * u.y) / square;
    return c.size[0] * (a.x * b.x + a.y * b.y - along) / scalar_sqrt(square);
  }
  const double x = c.size[0] * c.size[0], y = c.size[1] * c.size[1], z = c.size[2] * c.size[2];
  const double square = x * u.x * u.x + y * u.y * u.y + z * u.z * u.z;
  const double along = (x * u.x * a.x + y * u.y * a.y + z * u.z * a.z) *
                       (x * u.x * b.x + y * u.y * b.y + z * u.z * b.z) / square;
  return (x * a.x * b.x + y * a.y * b.y + z * a.z * b.z - along) / scalar_sqrt(square);
}

// The point of A - B farthest along n; n times it is the negative separation along n.
SDPG_INLINE Vec3d difference(const Convex& a, const Convex& b, const Vec3d& n) {
  return support(a, n) - support(b, negative(n));
}
SDPG_INLINE double overlap(const Convex& a, const Convex& b, const Vec3d& n) {
  return dot(n, difference(a, b, n));
}

// ---- the nearest part of the boundary: simplex, then polytope
// ---------------------------------------

inline constexpr int kPolytopeVertices = 40, kPolytopeFaces = 96;

struct PolytopeFace {
  int v[3];
  Vec3d normal;
  double height;  // of the plane above the origin
};

struct Polytope {
  Vec3d vertex[kPolytopeVertices];
  PolytopeFace face[kPolytopeFaces];
  int vertices, faces;
};

// Turned outward, away from `inside`. False where the corners lie in a line.
SDPG_FN bool set_face(Polytope& p, PolytopeFace& face, int i, int j, int k, const Vec3d& inside) {
  const Vec3d &a = p.vertex[i], &b = p.vertex[j], &c = p.vertex[k];
  Vec3d normal = cross(b - a, c - a);
  const double size = length(normal);
  if (!(size > 1e-14)) return false;
  normal = normal * (1 / size);
  face = {{i, j, k}, normal, dot(normal, a)};
  if (dot(normal, inside) > face.height) {
    face.normal = negative(normal);
    face.height = -face.height;
    face.v[1] = k;
    face.v[2] = j;
  }
  return true;
}

// Four points of the rounded difference around the origin, in p.vertex[0 .. 4). False if the shapes
// are apart by more than the rounding less `least`, with `n` then separating them.
//
// The search starts along `n` and gives up, without an answer, after many steps among points that
// lie in a plane; then it may be tried from elsewhere.
enum class Enclosure { kFound, kApart, kUnclear };
SDPG_RARE Enclosure enclose_from(const Convex& a, const Convex& b, double rounding, double least,
                                 Vec3d n, Polytope& p) {
  const auto at = [&](const Vec3d& n) { return difference(a, b, n) + n * rounding; };
  Vec3d* const v = p.vertex;
  v[0] = at(n);
  if (dot(v[0], n) < least) return Enclosure::kApart;
  int count = 1;
  n = length(v[0]) > 1e-12 ? unit(negative(v[0])) : negative(n);
  for (int iteration = 0; iteration < 100; ++iteration) {
    const Vec3d next = at(n);
    if (dot(next, n) < least) return Enclosure::kApart;
    v[count++] = next;
    // The part of the simplex nearest to the origin, and the direction from it to the origin.
    if (count == 2) {
      const Vec3d along = v[1] - v[0];
      Vec3d across = cross(cross(along, negative(v[1])), along);
      if (!(length(across) > 1e-12)) {  // the origin is on the line
        const Vec3d other =
            magnitude(along.x) < magnitude(along.y) ? Vec3d{1, 0, 0} : Vec3d{0, 1, 0};
        across = cross(along, other);
      }
      n = unit(across);
    } else if (count == 3) {
      // The new point is v[2]; the origin lies beyond an edge at it, or above or below.
      const Vec3d ab = v[1] - v[2], ac = v[0] - v[2], ao = negative(v[2]);
      Vec3d face = cross(ab, ac);
      const double area = length(face);
      if (!(area > 1e-14)) {  // in a line: drop the oldest
        v[0] = v[1];
        v[1] = v[2];
        count = 2;
        const Vec3d along = v[1] - v[0];
        const Vec3d other =
            magnitude(along.x) < magnitude(along.y) ? Vec3d{1, 0, 0} : Vec3d{0, 1, 0};
        n = unit(cross(along, other));
        continue;
      }
      const Vec3d out_ab = cross(ab, face), out_ac = cross(face, ac);
      if (dot(out_ac, ao) > 0) {
        v[1] = v[2];
        count = 2;
        const Vec3d across = cross(cross(ac, ao), ac);
        n = length(across) > 1e-12 ? unit(across) : unit(out_ac);
      } else if (dot(out_ab, ao) > 0) {
        v[0] = v[1];
        v[1] = v[2];
        count = 2;
        const Vec3d across = cross(cross(ab, ao), ab);
        n = length(across) > 1e-12 ? unit(across) : unit(out_ab);
      } else {
        n = face * (1 / area);
        if (dot(n, ao) < 0) n = negative(n);
      }
    } else {
      // Beyond which of the three faces at the new point v[3]?
      int beyond = -1;
      double farthest = 0;
      for (int omit = 0; omit < 3; ++omit) {
        const Vec3d &x = v[(omit + 1) % 3], &y = v[(omit + 2) % 3];
        Vec3d face = cross(x - v[3], y - v[3]);
        const double area = length(face);
        if (!(area > 1e-14)) {
          beyond = omit;
          break;
        }
        face = face * (1 / area);
        if (dot(face, v[omit] - v[3]) > 0) face = negative(face);
        const double height = -dot(face, v[3]);  // of the origin above this face
        if (height > farthest) {
          farthest = height;
          beyond = omit;
          n = face;
        }
      }
      if (beyond < 0) return Enclosure::kFound;
      v[beyond] = v[2];
      v[2] = v[3];
      count = 3;
      if (farthest > 0) continue;
      n = unit(cross(v[1] - v[0], v[2] - v[0]));
      if (dot(n, v[0]) > 0) n = negative(n);
    }
  }
  return Enclosure::kUnclear;
}
SDPG_FN bool enclose_origin(const Convex& a, const Convex& b, double rounding, double least,
                            Polytope& p) {
  Vec3d n = b.position - a.position;  // from A to B: where the difference is thin
  n = length(n) > 1e-12 ? unit(n) : Vec3d{0, 0, 1};
  for (int attempt = 0; attempt < 4; ++attempt) {
    const Enclosure found = enclose_from(a, b, rounding, least, n, p);
    if (found != Enclosure::kUnclear) return found == Enclosure::kFound;
    n = unit(Vec3d{n.y + 0.3, n.z - 0.5, n.x + 0.7});
  }
  return false;
}

// Expands the enclosing simplex towards the boundary until its nearest face is within `tolerance`
// of it. Returns that face's outward normal.
SDPG_RARE Vec3d expand(const Convex& a, const Convex& b, double rounding, double tolerance,
                       Polytope& p) {
  const Vec3d inside = (p.vertex[0] + p.vertex[1] + p.vertex[2] + p.vertex[3]) * 0.25;
  p.vertices = 4;
  p.faces = 0;
  for (int omit = 0; omit < 4; ++omit) {
    const int i = (omit + 1) % 4, j = (omit + 2) % 4, k = (omit + 3) % 4;
    if (set_face(p, p.face[p.faces], i, j, k, inside)) ++p.faces;
  }
  Vec3d best = p.face[0].normal;
  double best_height = 1e300;
  for (;;) {
    int nearest = 0;
    for (int f = 1; f < p.faces; ++f)
      if (p.face[f].height < p.face[nearest].height) nearest = f;
    const Vec3d n = p.face[nearest].normal;
    const Vec3d next = difference(a, b, n) + n * rounding;
    const double height = dot(n, next);
    if (height < best_height) {
      best_height = height;
      best = n;
    }
    if (best_height - p.face[nearest].height <= tolerance || p.vertices == kPolytopeVertices)
      return best;

    // Faces that see the new vertex go; the edges around the hole get new faces.
    int edge[kPolytopeFaces][2], edges = 0, left = 0;
    for (int f = 0; f < p.faces; ++f) {
      const PolytopeFace& face = p.face[f];
      if (dot(face.normal, next) <= face.height + 1e-12) {
        p.face[left++] = face;
        continue;
      }
      for (int e = 0; e < 3; ++e) {
        const int from = face.v[e], to = face.v[(e + 1) % 3];
        int twin = -1;
        for (int q = 0; q < edges; ++q)
          if (edge[q][0] == to && edge[q][1] == from) twin = q;
        if (twin >= 0) {  // between two faces that both go
          --edges;
          edge[twin][0] = edge[edges][0];
          edge[twin][1] = edge[edges][1];
        } else if (edges < kPolytopeFaces) {
          edge[edges][0] = from;
          edge[edges++][1] = to;
        }
      }
    }
    if (left == p.faces || left + edges > kPolytopeFaces) return best;
    p.faces = left;
    p.vertex[p.vertices] = next;
    for (int e = 0; e < edges; ++e)
      if (set_face(p, p.face[p.faces], edge[e][0], edge[e][1], p.vertices, inside)) ++p.faces;
    ++p.vertices;
  }
}

// ---- the nearest point itself
// -----------------------------------------------------------------------

// Directions along which support points of the form jump: its edges.
SDPG_FN int edge_directions(const Convex& c, Vec3d* out) {
  switch (c.form) {
    case Form::kSegment:
    case Form::kCylinder:
      out[0] = column(c.matrix, 2);
      return 1;
    case Form::kBox:
      for (int k = 0; k < 3; ++k) out[k] = column(c.matrix, k);
      return 3;
    case Form::kPrism:
      out[0] = {0, 0, 1};
      for (int k = 0; k < 3; ++k) {
        out[1 + k] = unit(c.corner[(k + 1) % 3] - c.corner[k]);
        out[4 + k] = unit(c.corner[3 + (k + 1) % 3] - c.corner[3 + k]);
      }
      return 7;
    default:
      return 0;
  }
}

// The direction of least overlap, kept with the overlap there.
struct Deepest {
  Vec3d n;
  double overlap;
  SDPG_FN void consider(const Convex& a, const Convex& b, const Vec3d& candidate) {
    const double value = sdpg::core::overlap(a, b, candidate);
    if (!(value < overlap)) return;
    overlap = value;
    n = candidate;
  }
};

// Newton's method for the least overlap from n over all directions, or over those orthogonal to a
// kink.
SDPG_RARE Vec3d descend(const Convex& a, const Convex& b, Vec3d n, const Vec3d* kink) {
  double value = overlap(a, b, n);
  for (int iteration = 0; iteration < 20; ++iteration) {
    Vec3d s, t;
    if (kink != nullptr) {
      s = cross(*kink, n);
      t = *kink;
    } else {
      s = unit(cross(n, magnitude(n.x) < 0.6 ? Vec3d{1, 0, 0} : Vec3d{0, 1, 0}));
      t = cross(n, s);
    }
    const Vec3d w = difference(a, b, n), back = negative(n);
    const auto curvature = [&](const Vec3d& x, const Vec3d& y) {
      return support_curvature(a, n, x, y) + support_curvature(b, back, x, y);
    };
    const double gs = dot(w, s), gt = kink != nullptr ? 0 : dot(w, t);
    // On the sphere the radii of curvature are measured from the origin's distance.
    double ss = curvature(s, s) - value, tt = 1, st = 0;
    if (kink == nullptr) {
      tt = curvature(t, t) - value;
      st = curvature(s, t);
    }
    const double determinant = ss * tt - st * st;
    double ds, dt;
    if (ss > 0 && determinant > 1e-14 * (ss * ss + tt * tt)) {
      ds = -(gs * tt - gt * st) / determinant;
      dt = -(gt * ss - gs * st) / determinant;
    } else {
      const double scale = magnitude(ss) + magnitude(tt) + magnitude(value) + 1e-9;
      ds = -gs / scale;
      dt = -gt / scale;
    }
    const double step = scalar_sqrt(ds * ds + dt * dt);
    if (!(step > 1e-15)) return n;
    double shorter = step > 0.3 ? 0.3 / step : 1;
    bool moved = false;
    for (int attempt = 0; attempt < 8 && !moved; ++attempt, shorter *= 0.5) {
      const Vec3d candidate = unit(n + s * (shorter * ds) + t * (shorter * dt));
      const double there = overlap(a, b, candidate);
      if (!(there < value || (attempt == 0 && step < 1e-6 && there <= value + 1e-15))) continue;
      n = candidate;
      value = there;
      moved = true;
    }
    if (!moved || step < 1e-12) return n;
  }
  return n;
}

// The direction of least overlap in the neighbourhood of n.
SDPG_RARE Deepest refine(const Convex& a, const Convex& b, const Vec3d& n) {
  constexpr double near_kink = 0.2;
  Deepest best{n, overlap(a, b, n)};
  Vec3d kink[14];
  int kinks = edge_directions(a, kink);
  kinks += edge_directions(b, kink + kinks);
  int active = 0;
  for (int i = 0; i < kinks; ++i)
    if (magnitude(dot(kink[i], n)) < near_kink) kink[active++] = kink[i];
  const Convex* const both[2] = {&a, &b};
  for (const Convex* c : both) {  // flat ends of cylinders
    const Vec3d axis = column(c->matrix, 2);
    if (c->form == Form::kCylinder && magnitude(dot(axis, n)) > 1 - near_kink)
      best.consider(a, b, dot(axis, n) > 0 ? axis : negative(axis));
  }
  for (int i = 0; i < active; ++i)
    for (int j = 0; j < i; ++j) {
      Vec3d corner = cross(kink[i], kink[j]);
      const double sine = length(corner);
      if (!(sine > 1e-6)) continue;
      corner = corner * ((dot(corner, n) > 0 ? 1 : -1) / sine);
      best.consider(a, b, corner);
    }
  for (int i = 0; i < active; ++i) {
    const Vec3d onto = n - kink[i] * dot(kink[i], n);
    best.consider(a, b, descend(a, b, unit(onto), &kink[i]));
  }
  best.consider(a, b, descend(a, b, n, nullptr));
  return best;
}

// ---- touches
// ------------------------------------------------------------------------------------------

// The face of the form that is farthest along n, or its edge or corner: what lies within `slack`
// (a cosine) of orthogonal to n. Corners in cyclic order.
SDPG_RARE int supporting_face(const Convex& c, const Vec3d& n, double slack, Vec3d* out) {
  switch (c.form) {
    case Form::kPoint:
    case Form::kEllipsoid:
      out[0] = support(c, n);
      return 1;
    case Form::kPrism: {
      int best = 0;
      for (int i = 1; i < 6; ++i)
        if (dot(c.corner[i], n) > dot(c.corner[best], n)) best = i;
      bool in[6];
      int count = 0;
      for (int i = 0; i < 6; ++i) {
        const Vec3d apart = c.corner[best] - c.corner[i];
        in[i] = dot(apart, n) <= slack * length(apart);
        count += in[i];
      }
      int k = 0;
      if (count == 4) {  // two on top, the same two below, the other way round
        for (int i = 0; i < 3; ++i)
          if (in[i]) out[k++] = c.corner[i];
        for (int i = 2; i >= 0; --i)
          if (in[3 + i]) out[k++] = c.corner[3 + i];
        return k;
      }
      for (int i = 0; i < 6; ++i)
        if (in[i]) out[k++] = c.corner[i];
      return k;
    }
    default:
      break;
  }
  const Vec3d u = rotate_back(c.matrix, n);
  const Vec3d x = column(c.matrix, 0), y = column(c.matrix, 1), z = column(c.matrix, 2);
  const double aside = scalar_sqrt(u.x * u.x + u.y * u.y);
  if (c.form == Form::kCylinder && aside <= slack) {
    // The disc, as MuJoCo's polygon: from x on, clockwise seen from outside.
    constexpr double cosine[5] = {1, 0.923879532511286756, 0.707106781186547524,
                                  0.382683432365089772, 0};
    const double sign = u.z >= 0 ? 1 : -1;
    const Vec3d middle = c.position + z * (sign * c.size[1]);
    for (int i = 0; i < kDiscCorners; ++i) {
      const int quarter = i / 4, rest = i % 4;
      const double up = cosine[rest], over = cosine[4 - rest];
      const double cx = quarter == 0 ? up : quarter == 1 ? -over : quarter == 2 ? -up : over;
      const double cy = quarter == 0 ? over : quarter == 1 ? up : quarter == 2 ? -over : -up;
      out[i] = middle + x * (c.size[0] * cx) - y * (c.size[0] * cy * sign);
    }
    return kDiscCorners;
  }
  if (c.form == Form::kSegment || c.form == Form::kCylinder) {
    out[0] = support(c, n);
    if (magnitude(u.z) > slack) return 1;
    out[1] = out[0] - z * ((u.z >= 0 ? 2 : -2) * c.size[c.form == Form::kSegment ? 2 : 1]);
    return 2;
  }
  // A box: the axes it extends along there.
  const double component[3] = {u.x, u.y, u.z};
  const Vec3d axes[3] = {x, y, z};
  int free[3], frees = 0;
  Vec3d middle = c.position;
  for (int k = 0; k < 3; ++k) {
    if (magnitude(component[k]) <= slack)
      free[frees++] = k;
    else
      middle = middle + axes[k] * (component[k] > 0 ? c.size[k] : -c.size[k]);
  }
  if (frees == 0) {
    out[0] = middle;
    return 1;
  }
  const Vec3d e = axes[free[0]] * c.size[free[0]];
  if (frees == 1) {
    out[0] = middle + e;
    out[1] = middle - e;
    return 2;
  }
  // A face, from the corner and in the direction in which MuJoCo goes round it: which four of many
  // touches are kept depends on that. Bits of two corners' signs along e and f, by face.
  constexpr unsigned char order[3][2][4] = {
      {{3, 1, 0, 2}, {1, 3, 2, 0}}, {{0, 1, 3, 2}, {2, 3, 1, 0}}, {{2, 3, 1, 0}, {3, 2, 0, 1}}};
  const Vec3d f = axes[free[1]] * c.size[free[1]];
  const int k = 3 - free[0] - free[1];
  for (int i = 0; i < 4; ++i) {
    const int signs = order[k][component[k] > 0 ? 0 : 1][i];
    out[i] = middle + e * (signs & 1 ? 1.0 : -1.0) + f * (signs & 2 ? 1.0 : -1.0);
  }
  return 4;
}

// Cuts the polygon (or segment) by the sides of a convex one, all seen along `axis`.
SDPG_RARE int cut_by_sides(const Vec3d* sides, int side_count, const Vec3d& axis, Vec3d* polygon,
                           int n) {
  Vec3d middle{0, 0, 0};
  for (int i = 0; i < side_count; ++i) middle = middle + sides[i] * (1.0 / side_count);
  for (int e = 0; e < side_count && n > 0; ++e) {
    const Vec3d &from = sides[e], &to = sides[e + 1 == side_count ? 0 : e + 1];
    Vec3d inward = cross(axis, to - from);
    const double size = length(inward);
    if (!(size > 1e-14)) continue;
    inward = inward * (1 / size);
    if (dot(inward, middle - from) < 0) inward = negative(inward);
    Vec3d old[kCutCorners];
    double depth[kCutCorners];
    for (int i = 0; i < n; ++i) {
      old[i] = polygon[i];
      depth[i] = dot(inward, polygon[i] - from);
    }
    int count = 0;
    const int edges = n == 2 ? 1 : n;
    for (int i = 0; i < edges; ++i) {
      const int next = i + 1 == n ? 0 : i + 1;
      const bool in = depth[i] > -1e-15, next_in = depth[next] > -1e-15;
      if (n <= 2 && in && count < kCutCorners) polygon[count++] = old[i];
      if (in != next_in && count < kCutCorners)
        polygon[count++] = old[i] + (old[next] - old[i]) * (depth[i] / (depth[i] - depth[next]));
      if (next != i && next_in && count < kCutCorners) polygon[count++] = old[next];
    }
    n = count;
  }
  return n;
}

struct Spot {
  double distance;
  Vec3d position, normal;
};

// One touch along n: midway between the surfaces, in the middle of what the two faces share.
SDPG_FN Spot middle_touch(const Convex& a, const Convex& b, const Vec3d& n, double core_overlap) {
  constexpr double flat = 1e-7;
  Vec3d face1[kCutCorners], face2[kCutCorners];
  const int n1 = supporting_face(a, n, flat, face1);
  const int n2 = supporting_face(b, negative(n), flat, face2);
  Spot spot;
  spot.distance = -core_overlap - a.radius - b.radius;
  spot.normal = n;
  Vec3d on1 = face1[0];  // the point of A's form
  if (n1 == 1) {
    // It is.
  } else if (n2 == 1) {
    on1 = face2[0] + n * core_overlap;
  } else if (n1 == 2 && n2 == 2) {
    const Vec3d u = face1[1] - face1[0], v = face2[1] - face2[0], w = face2[0] - face1[0];
    const double turn = dot(n, cross(u, v));
    double share = dot(n, cross(w, v)) / turn;
    if (magnitude(turn) < 1e-9 * length(u) * length(v)) {
      const double square = dot(u, u);
      const double t0 = dot(w, u) / square, t1 = dot(w + v, u) / square;
      share = 0.5 * (larger(0.0, smaller(t0, t1)) + smaller(1.0, larger(t0, t1)));
    }
    on1 = face1[0] + u * clip(share, 0.0, 1.0);
  } else {
    // The one of fewer corners cut by the other.
    const bool first = n1 <= n2;
    Vec3d* const cut = first ? face1 : face2;
    const Vec3d fallback = cut[0];
    const int count = cut_by_sides(first ? face2 : face1, first ? n2 : n1, n, cut, first ? n1 : n2);
    Vec3d sum{0, 0, 0};
    for (int i = 0; i < count; ++i) sum = sum + cut[i] * (1.0 / count);
    on1 = count == 0 ? fallback : sum;
    if (!first) on1 = on1 + n * core_overlap;
  }
  spot.position = on1 + n * (a.radius + 0.5 * spot.distance);
  return spot;
}

// Four corners of a convex polygon of more than four that span the largest quadrilateral, found by
// moving the corners round together (rotating calipers).
SDPG_FN void largest_quadrilateral(const Vec3d* p, int n, int* best) {
  const auto area = [&](int i, int j, int k, int l) {
    return length(cross(p[k] - p[i], p[l] - p[j]));
  };
  const auto after = [&](int i) { return i + 1 == n ? 0 : i + 1; };
  int at[4] = {0, 1, 2, 3};
  for (int k = 0; k < 4; ++k) best[k] = k;
  double value = area(0, 1, 2, 3);
  const auto advance = [&](int which) {
    int moved[4] = {at[0], at[1], at[2], at[3]};
    moved[which] = after(at[which]);
    const double there = area(moved[0], moved[1], moved[2], moved[3]);
    if (there <= value) return false;
    value = there;
    at[which] = moved[which];
    for (int k = 0; k < 4; ++k) best[k] = at[k];
    return true;
  };
  for (; at[0] < n; ++at[0]) {
    while (advance(3)) {
      while (advance(2)) {
      }
      while (advance(1)) {
      }
    }
    if (at[1] != at[0]) continue;
    at[1] = after(at[1]);
    if (at[2] != at[1]) continue;
    at[2] = after(at[2]);
    if (at[3] == at[2]) at[3] = after(at[3]);
  }
}

// Where a cylinder stands on a face of the other shape or lies on a box's, nearly parallel: several
// touches. Returns 0 where it does not.
SDPG_FN int flat_touches(const Convex& cylinder, const Convex& other, const Vec3d& n, Spot* out) {
  constexpr double face_cosine = 0.996, line_cosine = 0.08;  // as MuJoCo 3.14, measured
  const Vec3d axis = column(cylinder.matrix, 2), toward = negative(n);
  const Vec3d cap = dot(axis, n) >= 0 ? axis : negative(axis);
  // Faces of the other one that are turned to the cylinder.
  Vec3d normal = column(other.matrix, 2);
  if (other.form == Form::kBox)
    for (int k = 0; k < 2; ++k)
      if (magnitude(dot(column(other.matrix, k), n)) > magnitude(dot(normal, n)))
        normal = column(other.matrix, k);
  if (dot(normal, toward) < 0) normal = negative(normal);
  if (dot(normal, toward) < 0.7) return 0;

  Vec3d polygon[kCutCorners], sides[kDiscCorners];
  int count, keep[4] = {0, 1, 2, 3};
  if (dot(cap, normal) < -face_cosine) {
    // What of the other face is under the disc, as far as it is inside.
    const int corners = supporting_face(cylinder, cap, 1e-7, sides);
    count = supporting_face(other, normal, 1e-7, polygon);
    count = cut_by_sides(sides, corners, cap, polygon, count);
    int left = 0;
    for (int i = 0; i < count; ++i)
      if (dot(polygon[i] - sides[0], cap) <= 0) polygon[left++] = polygon[i];
    count = left;
    if (count > 4) {
      largest_quadrilateral(polygon, count, keep);
      count = 4;
    }
    for (int i = 0; i < count; ++i) {
      const Vec3d& at = polygon[keep[i]];
      const double depth = dot(at - sides[0], cap);
      out[i] = {depth, at + normal * (0.5 * depth), negative(normal)};
    }
    return count;
  }
  if (other.form == Form::kBox && magnitude(dot(axis, normal)) < line_cosine) {
    // The line of the cylinder that is deepest, cut to the face.
    polygon[0] = support(cylinder, n);
    polygon[1] = polygon[0] - cap * (2 * cylinder.size[1]);
    const int corners = supporting_face(other, normal, 1e-7, sides);
    count = cut_by_sides(sides, corners, normal, polygon, 2);
    int left = 0;
    for (int i = 0; i < count; ++i)
      if (dot(polygon[i] - sides[0], normal) <= 0) polygon[left++] = polygon[i];
    for (int i = 0; i < left && i < 2; ++i) {
      const double depth = dot(polygon[i] - sides[0], normal);
      out[i] = {depth, polygon[i] - normal * (0.5 * depth), negative(normal)};
    }
    return left < 2 ? left : 2;
  }
  return 0;
}

// Turns the shape by the rotation about `origin`.
SDPG_FN Convex turned(const Convex& c, const double* rotation, const Vec3d& origin) {
  Convex out = c;
  for (int k = 0; k < 3; ++k) {
    const Vec3d column_k = rotate(rotation, column(c.matrix, k));
    out.matrix[k] = column_k.x;
    out.matrix[3 + k] = column_k.y;
    out.matrix[6 + k] = column_k.z;
  }
  out.position = origin + rotate(rotation, c.position - origin);
  return out;
}

// Row-major matrix of a turn by a small angle with the given sine about a unit axis.
SDPG_FN void small_turn(const Vec3d& k, double sine, double* m) {
  const double cosine = scalar_sqrt(1 - sine * sine), v = 1 - cosine;
  m[0] = cosine + k.x * k.x * v;
  m[1] = k.x * k.y * v - k.z * sine;
  m[2] = k.x * k.z * v + k.y * sine;
  m[3] = k.y * k.x * v + k.z * sine;
  m[4] = cosine + k.y * k.y * v;
  m[5] = k.y * k.z * v - k.x * sine;
  m[6] = k.z * k.x * v - k.y * sine;
  m[7] = k.z * k.y * v + k.x * sine;
  m[8] = cosine + k.z * k.z * v;
}

// Further touches of a pair that may lean on each other flat: where else they touch when both are
// tilted a little about the first touch, each way about both tangents.
SDPG_FN int tilted_touches(const Convex& a, const Convex& b, double reach, Spot* out) {
  constexpr double sine = 0.00099999983333334168;  // of 1e-3 rad
  const Vec3d n = out[0].normal;
  const Vec3d wish = magnitude(n.y) < 0.5 ? Vec3d{0, 1, 0} : Vec3d{0, 0, 1};
  const Vec3d first = unit(wish - n * dot(n, wish));
  const Vec3d axes[2] = {first, cross(n, first)};
  const double apart = 1e-3 * smaller(a.bound, b.bound);
  int count = 1;
  for (const Vec3d& axis : axes)
    for (int side = -1; side <= 1; side += 2) {
      double forth[9], back[9];
      small_turn(axis, side * sine, forth);
      small_turn(axis, -side * sine, back);
      const Convex a2 = turned(a, forth, out[0].position), b2 = turned(b, back, out[0].position);
      const Deepest found = refine(a2, b2, n);
      const Spot spot = middle_touch(a2, b2, found.n, found.overlap);
      if (!(spot.distance < reach)) continue;
      bool distinct = true;
      for (int i = 0; i < count; ++i)
        distinct = distinct && length(out[i].position - spot.position) > apart;
      if (!distinct) continue;
      out[count] = {out[0].distance, spot.position, spot.normal};
      ++count;
    }
  return count;
}

// Touches of two shapes nearer than `reach`. `several` for pairs of capsules, cylinders and boxes,
// which may lean on each other flat.
SDPG_RARE int touch_convex(const Convex& a, const Convex& b, double reach, bool several,
                           Spot* out) {
  const double slack = 0.05 * smaller(a.bound, b.bound);
  const double round = a.radius + b.radius;
  // As little rounding as the pair needs: where the forms themselves overlap, their flat parts stay
  // flat and the polytope ends on them.
  double rounding = reach + slack;
  Polytope polytope;
  if (!enclose_origin(a, b, rounding, slack, polytope)) {
    rounding += round;
    if (round == 0 || !enclose_origin(a, b, rounding, slack, polytope)) return 0;
  }
  const double tolerance = 1e-8 * (a.bound + b.bound + rounding);
  const Deepest found = refine(a, b, expand(a, b, rounding, tolerance, polytope));
  out[0] = middle_touch(a, b, found.n, found.overlap);
  if (!(out[0].distance < reach)) return 0;
  if (!several) return 1;
  const bool caps =
      a.form == Form::kCylinder && (b.form == Form::kCylinder || b.form == Form::kBox);
  if (!caps || reach > 0) return tilted_touches(a, b, reach, out);
  if (out[0].distance >= 0) return 1;
  Spot flat[4];
  const int count = flat_touches(a, b, found.n, flat);
  if (count == 0) return 1;
  for (int i = 0; i < count; ++i) out[i] = flat[i];
  return count;
}

// ---- geoms
// ----------------------------------------------------------------------------------------------

// Radius of a sphere around a geom of these sizes.
template <class T>
SDPG_FN T form_bound(const T* size, Form form) {
  switch (form) {
    case Form::kPoint:
      return size[0];
    case Form::kSegment:
      return size[0] + size[1];
    case Form::kCylinder:
      return scalar_sqrt(size[0] * size[0] + size[1] * size[1]);
    case Form::kEllipsoid:
      return larger(size[0], larger(size[1], size[2]));
    default:
      return scalar_sqrt(size[0] * size[0] + size[1] * size[1] + size[2] * size[2]);
  }
}

template <class T>
SDPG_INLINE Point<T> point_of(const Spot& spot) {
  const auto narrow = [](const Vec3d& v) {
    return Vec3<T>{static_cast<T>(v.x), static_cast<T>(v.y), static_cast<T>(v.z)};
  };
  return {static_cast<T>(spot.distance), narrow(spot.position), narrow(spot.normal)};
}

template <class T>
SDPG_FN Convex convex_of(const Solid<T>& solid, Form form) {
  Convex c{};
  c.form = form;
  c.position = {static_cast<double>(solid.position.x), static_cast<double>(solid.position.y),
                static_cast<double>(solid.position.z)};
  for (int i = 0; i < 9; ++i) c.matrix[i] = static_cast<double>(solid.matrix[i]);
  for (int i = 0; i < 3; ++i) c.size[i] = static_cast<double>(solid.size[i]);
  c.bound = form_bound(c.size, form);
  if (form == Form::kPoint || form == Form::kSegment) c.radius = c.size[0];
  if (form == Form::kSegment) c.size[2] = c.size[1];
  return c;
}

template <class P>
SDPG_FN void convex_convex(const Shape<P>& a, Form form1, const Shape<P>& b, Form form2,
                           typename P::Scalar reach, Touches<P>& out) {
  using T = typename P::Scalar;
  const Vec3<P> apart = b.position - a.position;
  const bool round = form1 == Form::kPoint || form1 == Form::kEllipsoid || form2 == Form::kPoint ||
                     form2 == Form::kEllipsoid;
  const T most = form_bound(a.size, form1) + form_bound(b.size, form2) + reach;
  const std::uint32_t lanes = bits(dot(apart, apart) < most * most);
  if (lanes == 0) return;
  for_lanes(a, b, lanes, round ? 1 : kConvexTouches, out,
            [&](const Solid<T>& first, const Solid<T>& second, Point<T>* points) {
              Spot spots[kConvexTouches];
              const int n = touch_convex(convex_of(first, form1), convex_of(second, form2),
                                         static_cast<double>(reach), !round, spots);
              for (int i = 0; i < n; ++i) points[i] = point_of<T>(spots[i]);
              return n;
            });
}

SDPG_ISA_END
}  // namespace sdpg::core
