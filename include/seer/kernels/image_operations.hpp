// SPDX-License-Identifier: Apache-2.0
// The operations of RandAugment on 8-bit images, bit for bit as Pillow computes them (method.md 4.4). Like those of
// kernels/image.hpp, each call is a plain loop on the calling thread.
#pragma once

#include <array>

#include "seer/kernels/image.hpp"

namespace seer::kernels {

/// In timm's order. Comments: the argument of each.
enum class Operation : std::uint8_t {
  auto_contrast,  ///< none
  equalize,       ///< none
  invert,         ///< none
  rotate,         ///< degrees, counter-clockwise
  posterize,      ///< number of bits that stay, 0 to 8
  solarize,       ///< values from this one on are inverted
  solarize_add,   ///< is added to values below 128
  color,          ///< factor; 1 changes nothing, as for the next three
  contrast,
  brightness,
  sharpness,
  shear_x,      ///< shift of a row per row
  shear_y,      ///< shift of a column per column
  translate_x,  ///< part of the width; the picture moves left if it is positive
  translate_y,  ///< part of the height; the picture moves up if it is positive
};
constexpr int kOperations = 15;

/// Does the operation in place. Geometric operations interpolate bilinearly; pixels from outside of the image get the
/// colour `fill`.
void apply(Operation operation, double argument, const std::array<std::uint8_t, 3>& fill, ImageScratch& scratch,
           Planes& image);

}  // namespace seer::kernels
