// What the plans of every backend run on: raw pointers and scalars. Plans keep none of them.
#pragma once

#include <cstdint>

namespace pycv {

struct ConvArguments {
    // The tensor that the pass computes is written, the other two are read. In forward and grad_input
    // `weight` is what prepare_weight() made (the plain weight where prepared_weight_bytes() is 0).
    void* input;
    void* weight;
    void* output;
    const void* bias;
    const void* residual;
    void* workspace;
    const void* input_scale = nullptr;  // of the prologue, as input_shift
    const void* input_shift = nullptr;
    bool plain_weight = false;  // `weight` is as it is although it could be prepared: where a plan takes it so
};

struct GemmArguments {
    const void* a;
    const void* b;  // prepared where prepared_weight_bytes() is not 0
    void* out;
    const void* bias;
    const void* residual;
    double alpha, beta;
    void* workspace;
    bool b_prepared;  // b is what prepare_weight() made
};

struct PoolArguments {
    void* input;    // grad_input in that pass (written, all of it)
    void* output;   // grad_output in that pass (read)
    void* indices;  // int64_t or uint8_t, as the problem has them; laid out as output; written forward, read backward
};

struct NormArguments {
    const void* input;
    const void* grad_output;  // grad_input pass
    void* output;             // forward: y (channel_sum: c values); grad_input pass: grad_input, null if not asked
    const void* weight;       // may be null, as bias
    const void* bias;
    void* running_mean;  // updated in training where not null; read in eval
    void* running_var;
    void* mean;  // batch_norm training: written forward, read backward (c values; f32 where dtype has 16 bits)
    void* invstd;
    void* grad_weight;  // may be null
    void* grad_bias;
    double eps, momentum;   // batch_norm
    double alpha, beta, k;  // local_response_norm
    void* workspace;
    const void* residual = nullptr;        // batch_norm forward, as the problem has it
    const void* forward_output = nullptr;  // batch_norm grad_input with relu: laid out as grad_output
    void* grad_residual = nullptr;         // may be null
};

struct PointwiseArguments {
    const void* input;  // relu grad_input: the forward's output (its sign is the mask); with a mask null
    const void* grad_output;
    void* output;          // may be the input (in place)
    void* mask = nullptr;  // where the problem has it: bit i % 8 of byte i / 8 says whether element i of relu's
                           // gradient passes; written forward, read backward
};

}  // namespace pycv
