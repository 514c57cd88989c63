// The arithmetic of fused image encoders (convolutions with ReLU, then a projection) on raw memory,
// compiled once per instruction set.
//
// Output channels ride in SIMD lanes: maps inside are [row][column][channel], channels padded with
// zeros to whole vectors, so a window of a map is a few contiguous runs and no window is ever
// copied. Pictures come as planes of bytes, [channel][row][column]; there a run is one row of the
// window. A projection is a convolution whose window is the whole map. Pictures are independent of
// each other and sums over pictures run in one fixed order, so no result depends on the number of
// threads. (It does depend on the instruction set.)
#pragma once

#include <cstddef>
#include <cstdint>

namespace sdpg {

constexpr int32_t kMaxConvLayers = 8;
constexpr int32_t kTilePictures = 12;  // pictures that share one pass over a projection's weights

struct ConvLayer {
  int32_t inputs, in_rows, in_columns;
  int32_t outputs, rows, columns;
  int32_t window_rows, window_columns, stride;
  bool relu;
  const float* weight;  // [outputs, inputs, window_rows, window_columns]
  const float* bias;    // [outputs]
};

struct ConvNet {
  int32_t layers;       // the last is the projection: 1 × 1 outputs
  const float* centre;  // [C, rows, columns]
  ConvLayer layer[kMaxConvLayers];
};

struct ConvKernels {
  const char* name;

  // Floats of 64-byte aligned memory.
  size_t (*packed_floats)(const ConvNet& net);    // the weights in the order the products read them
  size_t (*gradient_floats)(const ConvNet& net);  // gradients in that order
  size_t (*map_floats)(const ConvNet& net);       // the maps of one tile
  size_t (*forward_floats)(const ConvNet& net);   // scratch of one tile
  size_t (*backward_floats)(const ConvNet& net);

  void (*pack)(const ConvNet& net, float* packed);

  // y [pictures, O] ← net(pictures / 255 − centre); pictures [*, C, rows, columns], at most
  // kTilePictures. Leaves the tile's maps in maps if it is not null.
  void (*forward_tile)(const ConvNet& net, const float* packed, const uint8_t* pictures,
                       int32_t count, float* y, float* maps, float* scratch);

  // Adds the tile's gradients, given dy [pictures, O], to gradients. Without maps the forward pass
  // is computed again.
  void (*backward_tile)(const ConvNet& net, const float* packed, const uint8_t* pictures,
                        int32_t count, const float* dy, const float* maps, float* gradients,
                        float* scratch);

  // Layer's part of gradients in the order of its weight and bias.
  void (*unpack)(const ConvNet& net, const float* gradients, int32_t layer, float* weight,
                 float* bias);
};

// The set that mlp_kernels.h names in use.
const ConvKernels& conv_kernels();

}  // namespace sdpg
