// Fused image encoders as an operator with autograd.
#pragma once

namespace sdpg {

struct Arguments;

// Convolutions with ReLU, then a projection, of pictures x/255 − 0.5. Tensors: pictures uint8
// [B, C, H, W]; per convolution weight [O, C, h, w] and bias [O]; the projection's weight [D,
// O·H'·W'] and bias [D]. Numbers: one stride per convolution; no padding. Gives [B, D]; records
// gradients of the parameters where they are wanted. Memory does not grow with B: the backward pass
// computes the forward pass again, tile by tile.
void conv_encode(Arguments& a);

}  // namespace sdpg
