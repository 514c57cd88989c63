#include "render/mesh.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

namespace sdpg::render {
namespace {

constexpr int kLeaf = 4;
// Relative to the mesh's size; single precision rounds at 6e-8.
constexpr float kWiden = 1e-5f;

struct Builder {
  const std::vector<float>& vert;
  const std::vector<std::int32_t>& face;
  std::vector<std::array<float, 3>> middle;  // of each face
  std::vector<std::int32_t> order;
  float widen;
  Mesh* mesh;

  float coordinate(std::int32_t triangle, int corner, int axis) const {
    return vert[3 * face[3 * triangle + corner] + axis];
  }
  void bound(Mesh::Node* node, int first, int end) const {
    for (int k = 0; k < 3; ++k) {
      node->low[k] = INFINITY;
      node->high[k] = -INFINITY;
      for (int i = first; i < end; ++i) {
        for (int c = 0; c < 3; ++c) {
          node->low[k] = std::min(node->low[k], coordinate(order[i], c, k) - widen);
          node->high[k] = std::max(node->high[k], coordinate(order[i], c, k) + widen);
        }
      }
    }
  }
  // Halves the faces by their middles along the longest side.
  void build(int index, int first, int end) {
    Mesh::Node node{};
    bound(&node, first, end);
    if (end - first <= kLeaf) {
      node.first = first;
      node.count = end - first;
      mesh->nodes[index] = node;
      return;
    }
    for (int k = 1; k < 3; ++k)
      if (node.high[k] - node.low[k] > node.high[node.axis] - node.low[node.axis]) node.axis = k;
    const int half = first + (end - first) / 2;
    std::nth_element(order.begin() + first, order.begin() + half, order.begin() + end,
                     [&](std::int32_t a, std::int32_t b) {
                       const float x = middle[a][node.axis], y = middle[b][node.axis];
                       return x != y ? x < y : a < b;
                     });
    node.first = static_cast<std::int32_t>(mesh->nodes.size());
    mesh->nodes.resize(mesh->nodes.size() + 2);
    mesh->nodes[index] = node;
    build(node.first, first, half);
    build(node.first + 1, half, end);
  }
};

}  // namespace

std::shared_ptr<const Mesh> make_mesh(const std::vector<float>& vert,
                                      const std::vector<std::int32_t>& face) {
  auto mesh = std::make_shared<Mesh>();
  const int count = static_cast<int>(face.size() / 3);
  Builder builder{vert, face, {}, std::vector<std::int32_t>(count), 0, mesh.get()};
  std::iota(builder.order.begin(), builder.order.end(), 0);
  for (int f = 0; f < count; ++f) {
    std::array<float, 3> middle;
    for (int k = 0; k < 3; ++k) {
      middle[k] = (builder.coordinate(f, 0, k) + builder.coordinate(f, 1, k) +
                   builder.coordinate(f, 2, k)) /
                  3;
      for (int c = 0; c < 3; ++c)
        builder.widen = std::max(builder.widen, std::abs(builder.coordinate(f, c, k)));
    }
    builder.middle.push_back(middle);
  }
  builder.widen *= kWiden;
  mesh->nodes.resize(1);
  builder.build(0, 0, count);

  for (const std::int32_t f : builder.order) {
    Mesh::Triangle t;
    for (int k = 0; k < 3; ++k) {
      t.corner[k] = builder.coordinate(f, 0, k);
      t.edge1[k] = builder.coordinate(f, 1, k) - t.corner[k];
      t.edge2[k] = builder.coordinate(f, 2, k) - t.corner[k];
    }
    double n[3], square = 0;
    for (int k = 0; k < 3; ++k) {
      const int i = (k + 1) % 3, j = (k + 2) % 3;
      n[k] = static_cast<double>(t.edge1[i]) * t.edge2[j] -
             static_cast<double>(t.edge1[j]) * t.edge2[i];
      square += n[k] * n[k];
    }
    // A triangle without area is never hit.
    const double inverse = square > 0 ? 1 / std::sqrt(square) : 0;
    for (int k = 0; k < 3; ++k) t.normal[k] = static_cast<float>(n[k] * inverse);
    mesh->triangles.push_back(t);
  }
  for (int k = 0; k < 3; ++k) {
    const Mesh::Node& all = mesh->nodes[0];
    mesh->centre[k] = 0.5f * (all.low[k] + all.high[k]);
    mesh->extent[k] = 0.5f * (all.high[k] - all.low[k]) + builder.widen;
  }
  return mesh;
}

std::shared_ptr<const Mesh> make_height_field(int nrow, int ncol, const double size[4],
                                              const std::vector<float>& data) {
  std::vector<float> vert;
  std::vector<std::int32_t> face;
  const auto add = [&](double x, double y, double z) {
    for (const double p : {x, y, z}) vert.push_back(static_cast<float>(p));
    return static_cast<std::int32_t>(vert.size() / 3 - 1);
  };
  const auto x = [&](int c) { return (2.0 * c / (ncol - 1) - 1) * size[0]; };
  const auto y = [&](int r) { return (2.0 * r / (nrow - 1) - 1) * size[1]; };
  const auto top = [&](int r, int c) { return r * ncol + c; };
  // Counter-clockwise a, b, c and a, c, d.
  const auto quad = [&](std::int32_t a, std::int32_t b, std::int32_t c, std::int32_t d) {
    face.insert(face.end(), {a, b, c, a, c, d});
  };
  for (int r = 0; r < nrow; ++r)
    for (int c = 0; c < ncol; ++c) add(x(c), y(r), data[top(r, c)] * size[2]);
  for (int r = 0; r + 1 < nrow; ++r)
    for (int c = 0; c + 1 < ncol; ++c)
      quad(top(r, c), top(r, c + 1), top(r + 1, c + 1), top(r + 1, c));
  // Down to the base: along the rows in front and behind, then along the columns.
  std::vector<std::int32_t> front, back, left, right;
  for (int c = 0; c < ncol; ++c) {
    front.push_back(add(x(c), y(0), -size[3]));
    back.push_back(add(x(c), y(nrow - 1), -size[3]));
  }
  for (int r = 0; r < nrow; ++r) {
    left.push_back(add(x(0), y(r), -size[3]));
    right.push_back(add(x(ncol - 1), y(r), -size[3]));
  }
  for (int c = 0; c + 1 < ncol; ++c) {
    quad(front[c], front[c + 1], top(0, c + 1), top(0, c));
    quad(back[c + 1], back[c], top(nrow - 1, c), top(nrow - 1, c + 1));
  }
  for (int r = 0; r + 1 < nrow; ++r) {
    quad(left[r + 1], left[r], top(r, 0), top(r + 1, 0));
    quad(right[r], right[r + 1], top(r + 1, ncol - 1), top(r, ncol - 1));
  }
  quad(front[0], back[0], back[ncol - 1], front[ncol - 1]);
  return make_mesh(vert, face);
}

}  // namespace sdpg::render
