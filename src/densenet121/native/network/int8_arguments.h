// What Python fills in for int8 inference of a network.

#pragma once

#include "classifier.h"
#include "first_convolution.h"
#include "int8_affine.h"

namespace {

// Filled in by Python (structures.py): order and types must agree.
struct Int8Layer {
  Int8Affine affine;
  Int8Product conv1, conv2;
  // s16, for int8_winograd.h: the transformed weights of conv2; or null.
  void* patches;
};

struct Int8Block {
  int64_t input_columns, layers, growth, bottleneck;
  int64_t by_patches;  // whether the 3x3 convolutions are Winograd's, of Int8Layer::patches
  Int8Layer* layer;
  Int8Affine transition;  // of the last block: the last norm
  Int8Product reduction;  // the transition's convolution

  int64_t columns() const { return input_columns + layers * growth; }
  int64_t ld() const { return round_up(columns(), kAffineGroup); }
  int64_t inner_ld() const { return round_up(bottleneck, kSummands); }
};

struct Int8Network {
  int64_t threads, blocks, pooled, averages;
  FirstConvolution first;
  StemArguments pool;
  Int8Product conv0;
  // A channel's pixel is round((x - low) * step), limited to 8 bits; that of a zero is around images.
  float low[4], step[4];
  uint8_t zero[4];
  Int8Block* block;
  void* feature_scale;  // float, of each feature
  void* y;              // features, float
  ClassifierArguments classifier;  // of the features; without classes there is none
};

}  // namespace
