// Triangles under a hierarchy of boxes: meshes, and height fields turned into them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace sdpg::render {

struct Mesh {
  struct Node {
    float low[3], high[3];  // widened by more than the rounding of any ray's test
    std::int32_t first;     // of its triangles, or of its two children where it has none
    std::int32_t count;     // triangles, 0 where it has children
    std::int32_t axis;      // along which the children were parted, the lower one first
  };
  // Corner and the two edges from it, counter-clockwise from outside.
  struct Triangle {
    float corner[3], edge1[3], edge2[3], normal[3];
  };
  std::vector<Node> nodes;
  std::vector<Triangle> triangles;
  float centre[3], extent[3];  // of the box around all, m
};

// What a ray needs of a mesh, wherever it lies.
struct Triangles {
  const Mesh::Node* nodes;
  const Mesh::Triangle* triangles;
};

// Nodes that can wait while one is looked at; halving keeps the tree this low.
inline constexpr int kMeshStack = 64;
// The number of a triangle must be a whole number in single precision.
inline constexpr int kMostTriangles = 1 << 24;

// vert [nvert*3] m, face [nface*3] indices that exist; at least one face.
std::shared_ptr<const Mesh> make_mesh(const std::vector<float>& vert,
                                      const std::vector<std::int32_t>& face);

// The surface, the four walls and the base of a height field, split where the physics splits it.
// data [nrow*ncol] 0 to 1; size: half extents in x and y, height of 1, thickness of the base, m.
std::shared_ptr<const Mesh> make_height_field(int nrow, int ncol, const double size[4],
                                              const std::vector<float>& data);

}  // namespace sdpg::render
