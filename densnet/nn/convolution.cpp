// Messages of an equivariant convolution and their sum over neighbours, and its gradient, with nothing kept per edge.
//
// For every edge s -> t, path p = (l_edge, irrep i of the features, irrep o of the output) and channel c,
//
//     out[t, o, m, p, c] += w[e, p, c] * sum_k A_p[k, m] * h[s, i, k, c],     A_p[k, m] = sum_q C_p[q, k, m] Y[e, l_edge, q]
//
// which is densnet.nn.interaction.Convolution.message with its sum. Built by densnet/nn/kernel.py for a number of CHANNELS
// and a type REAL.
// Features (N, width_in, CHANNELS); harmonics (E, width_edge); weights (E, paths, CHANNELS); out (N, width_out, CHANNELS).

#include <cstdint>
#include <cstring>
#include <vector>
#ifdef _OPENMP
#include <omp.h>
#endif

using real = REAL;
constexpr int C = CHANNELS;
constexpr int LARGEST = 2 * 8 + 1;  // components of an irrep; DensNet.kernel_ready sees to that

struct Path {
  int32_t in, size_in;            // first component in the features, how many
  int32_t row, stride, size_out;  // component m of the output is in row + m * stride
  int32_t first, last;            // its terms
};

struct Term {  // of the Clebsch-Gordan sum of a path: A[entry] += value * Y[edge], entry = k * size_out + m
  int32_t edge, entry;
};

struct Shape {
  int64_t atoms, edges, width_in, width_edge, width_out, paths, threads;
  const Path* path;
  const Term* term;
  const real* value;  // of each term
};

static inline void matrix(const Shape& s, const Path& p, const real* y, real* a) {
  std::memset(a, 0, sizeof(real) * p.size_in * p.size_out);
  for (int k = p.first; k < p.last; ++k) a[s.term[k].entry] += s.value[k] * y[s.term[k].edge];
}

template <int D>
static inline void forward_path(const Path& p, const real* a, const real* h, const real* w, real* out) {
  for (int m = 0; m < p.size_out; ++m) {
    real* to = out + (p.row + m * p.stride) * C;
    for (int c = 0; c < C; ++c) {
      real sum = 0;
      for (int k = 0; k < D; ++k) sum += a[k * p.size_out + m] * h[k * C + c];
      to[c] += w[c] * sum;
    }
  }
}

// From g, the gradient of the output: gradients of the features (dh, added to), of the weights (dw) and of A (da).
template <int D>
static inline void backward_path(const Path& p, const real* a, const real* h, const real* w, const real* g, real* dh,
                                 real* dw, real* da) {
  real weight[C] = {0};
  for (int m = 0; m < p.size_out; ++m) {
    const real* from = g + (p.row + m * p.stride) * C;
    real dot[D] = {0};
    for (int c = 0; c < C; ++c) {
      const real u = w[c] * from[c];
      real sum = 0;
      for (int k = 0; k < D; ++k) {
        const real b = a[k * p.size_out + m];
        sum += b * h[k * C + c];
        dh[k * C + c] += b * u;
        dot[k] += h[k * C + c] * u;
      }
      weight[c] += from[c] * sum;
    }
    for (int k = 0; k < D; ++k) da[k * p.size_out + m] = dot[k];
  }
  std::memcpy(dw, weight, sizeof(weight));
}

// The size of an irrep as a constant of the code that works on it.
#define BY_SIZE(size, CALL)     \
  switch (size) {               \
    case 1: CALL(1); break;     \
    case 3: CALL(3); break;     \
    case 5: CALL(5); break;     \
    case 7: CALL(7); break;     \
    case 9: CALL(9); break;     \
    case 11: CALL(11); break;   \
    case 13: CALL(13); break;   \
    case 15: CALL(15); break;   \
    case 17: CALL(17); break;   \
  }

// First edge of part k of n: parts begin where a new target does, so that no two write to the same atom.
static int64_t begin(const Shape& s, const int64_t* target, int64_t k, int64_t n) {
  int64_t e = s.edges * k / n;
  while (e > 0 && e < s.edges && target[e] == target[e - 1]) ++e;
  return e;
}

static void forward_edges(const Shape& s, int64_t start, int64_t stop, const int64_t* source, const int64_t* target,
                          const real* h, const real* y, const real* w, real* out) {
  real a[LARGEST * LARGEST];
  for (int64_t e = start; e < stop; ++e) {
    const real* from = h + source[e] * s.width_in * C;
    real* to = out + target[e] * s.width_out * C;
    for (int64_t k = 0; k < s.paths; ++k) {
      const Path& p = s.path[k];
      const real* weight = w + (e * s.paths + k) * C;
      matrix(s, p, y + e * s.width_edge, a);
#define CALL(D) forward_path<D>(p, a, from + p.in * C, weight, to)
      BY_SIZE(p.size_in, CALL)
#undef CALL
    }
  }
}

static void backward_edges(const Shape& s, int64_t start, int64_t stop, const int64_t* source, const int64_t* target,
                           const real* h, const real* y, const real* w, const real* g, real* dh, real* dy, real* dw) {
  real a[LARGEST * LARGEST], da[LARGEST * LARGEST];
  std::vector<real> local(s.width_in * C);
  for (int64_t e = start; e < stop; ++e) {
    const real* from = h + source[e] * s.width_in * C;
    const real* to = g + target[e] * s.width_out * C;
    real* slope = dy + e * s.width_edge;
    std::memset(local.data(), 0, sizeof(real) * local.size());
    for (int64_t k = 0; k < s.paths; ++k) {
      const Path& p = s.path[k];
      const int64_t weight = (e * s.paths + k) * C;
      matrix(s, p, y + e * s.width_edge, a);
#define CALL(D) backward_path<D>(p, a, from + p.in * C, w + weight, to, local.data() + p.in * C, dw + weight, da)
      BY_SIZE(p.size_in, CALL)
#undef CALL
      for (int t = p.first; t < p.last; ++t) slope[s.term[t].edge] += s.value[t] * da[s.term[t].entry];
    }
    real* back = dh + source[e] * s.width_in * C;
    for (int64_t c = 0; c < s.width_in * C; ++c) back[c] += local[c];
  }
}

extern "C" void convolve(const Shape* shape, const int64_t* source, const int64_t* target, const real* h, const real* y,
                         const real* w, real* out) {
  const Shape& s = *shape;
  std::memset(out, 0, sizeof(real) * s.atoms * s.width_out * C);
#pragma omp parallel for num_threads(s.threads) schedule(static, 1) if (s.threads > 1)
  for (int64_t k = 0; k < s.threads; ++k)
    forward_edges(s, begin(s, target, k, s.threads), begin(s, target, k + 1, s.threads), source, target, h, y, w, out);
}

extern "C" void convolve_gradient(const Shape* shape, const int64_t* source, const int64_t* target, const real* h,
                                  const real* y, const real* w, const real* g, real* dh, real* dy, real* dw) {
  const Shape& s = *shape;
  const int64_t size = s.atoms * s.width_in * C;
  std::memset(dh, 0, sizeof(real) * size);
  std::memset(dy, 0, sizeof(real) * s.edges * s.width_edge);
  if (s.threads <= 1) {
    backward_edges(s, 0, s.edges, source, target, h, y, w, g, dh, dy, dw);
    return;
  }
  // Sources are met in any order: each part adds to a copy of its own, and the copies are added in a fixed order.
  std::vector<real> copies(size * s.threads, 0);
#pragma omp parallel for num_threads(s.threads) schedule(static, 1)
  for (int64_t k = 0; k < s.threads; ++k)
    backward_edges(s, s.edges * k / s.threads, s.edges * (k + 1) / s.threads, source, target, h, y, w, g,
                   copies.data() + size * k, dy, dw);
  for (int64_t k = 0; k < s.threads; ++k)
    for (int64_t i = 0; i < size; ++i) dh[i] += copies[size * k + i];
}
