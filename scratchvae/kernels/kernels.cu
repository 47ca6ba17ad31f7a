// The kernels of cuda.py. Each does what the Python function of its name says; that is its definition.
//
// Compiled once for each type of number, with -DREAL=float or -DREAL=double, and -DTHREADS=n, the
// threads of a block. The matrices (rows, columns) hold their rows whole, `..._stride` elements
// apart, so that the two halves of a (B, 2Z) array are read where they lie. A block takes the rows
// `block`, `block + blocks`, ..., and in each of them thread t the columns t, t + THREADS, ...
//
// Without a GPU the same text is C++ for the host, where a loop over t stands for the threads of a
// block: that is how the tests run it. So whatever one thread reads of another is apart in two
// EACH_THREAD, with a barrier between them.

typedef REAL real;
typedef long long index;  // 64 bits: a batch may hold more than 2^31 numbers
typedef unsigned char byte;

#ifdef __CUDACC__
#define KERNEL(name, ...) extern "C" __global__ void name(__VA_ARGS__)
#define DEVICE __device__
#define SHARED __shared__
#define EACH_THREAD(t) for (int t = threadIdx.x, done = 0; !done; done = 1, __syncthreads())
#define block (index) blockIdx.x
#define blocks (index) gridDim.x
#else
#include <cmath>
using std::exp, std::expm1, std::fabs, std::log1p, std::nan, std::sqrt;
#ifndef STEP
#define STEP 1  // -1 runs the threads from the last to the first
#endif
#define KERNEL(name, ...) extern "C" void name(index block, index blocks, __VA_ARGS__)
#define DEVICE static
#define SHARED
#define EACH_THREAD(t) for (int t = STEP > 0 ? 0 : THREADS - 1; 0 <= t && t < THREADS; t += STEP)
#endif

#define EACH_ROW(r, rows) for (index r = block; r < rows; r += blocks)
#define EACH_COLUMN(j, t, columns) for (index j = t; j < columns; j += THREADS)
#define EACH_ELEMENT(i, t, n) for (index i = block * THREADS + t; i < n; i += blocks * THREADS)

// ---- functions of one number ---------------------------------------------------------------------

DEVICE real sigmoid(real x) {
    real e = exp(-fabs(x));  // at most 1
    return (x >= 0 ? (real)1 : e) / (1 + e);
}

DEVICE real softplus(real x) {
    return (x > 0 ? x : (real)0) + log1p(exp(-fabs(x)));
}

// ---- the sum of a row ----------------------------------------------------------------------------

// Leave in part[0] the sum of what the threads put into part (THREADS,), always in the same order:
// the upper half is added to the lower, until one number is left. THREADS is a power of two.
DEVICE void fold(double *part) {
    for (int half = THREADS / 2; half > 0; half /= 2)
        EACH_THREAD(t)
            if (t < half) part[t] += part[t + half];
}

// ---- activations.py ------------------------------------------------------------------------------

KERNEL(relu_backward, const real *dy, const real *y, real *dx, index n) {
    EACH_THREAD(t) EACH_ELEMENT(i, t, n) dx[i] = dy[i] * (real)(y[i] > 0);
}

KERNEL(tanh_backward, const real *dy, const real *y, real *dx, index n) {
    EACH_THREAD(t) EACH_ELEMENT(i, t, n) dx[i] = dy[i] * (1 - y[i] * y[i]);
}

KERNEL(sigmoid_backward, const real *dy, const real *y, real *dx, index n) {
    EACH_THREAD(t) EACH_ELEMENT(i, t, n) dx[i] = dy[i] * y[i] * (1 - y[i]);
}

KERNEL(softplus_backward, const real *dy, const real *x, real *dx, index n) {
    EACH_THREAD(t) EACH_ELEMENT(i, t, n) dx[i] = dy[i] * sigmoid(x[i]);
}

KERNEL(silu_backward, const real *dy, const real *x, const real *s, real *dx, index n) {
    EACH_THREAD(t) EACH_ELEMENT(i, t, n) dx[i] = dy[i] * (s[i] + x[i] * s[i] * (1 - s[i]));
}

KERNEL(elu_backward, const real *dy, const real *x, real *dx, index n) {
    EACH_THREAD(t) EACH_ELEMENT(i, t, n) dx[i] = dy[i] * exp(x[i] < 0 ? x[i] : (real)0);
}

// ---- likelihoods.py ------------------------------------------------------------------------------

// x (x_rows, columns) repeats for every further x_rows rows of logits (rows, columns), as x (B, D)
// does for logits (K, B, D). nll (rows,). One number leaves a row, so nothing but that is written.
KERNEL(bernoulli_nll, const real *x, const real *logits, real *nll,
       index rows, index columns, index x_rows, index x_stride, index logits_stride) {
    SHARED double part[THREADS];
    EACH_ROW(r, rows) {
        const real *x_row = x + r % x_rows * x_stride, *l = logits + r * logits_stride;
        EACH_THREAD(t) {
            part[t] = 0;
            EACH_COLUMN(j, t, columns) part[t] += softplus(l[j]) - x_row[j] * l[j];
        }
        fold(part);
        EACH_THREAD(t)
            if (t == 0) nll[r] = (real)part[0];
    }
}

// dlogits (rows, columns) from dnll (rows,)
KERNEL(bernoulli_nll_backward, const real *dnll, const real *x, const real *logits, real *dlogits,
       index rows, index columns, index x_rows, index x_stride, index logits_stride) {
    EACH_ROW(r, rows) {
        const real *x_row = x + r % x_rows * x_stride, *l = logits + r * logits_stride;
        EACH_THREAD(t) EACH_COLUMN(j, t, columns)
            dlogits[r * columns + j] = dnll[r] * (sigmoid(l[j]) - x_row[j]);
    }
}

// ---- gaussian.py ---------------------------------------------------------------------------------

// z and eps (rows, columns); mu, logvar and sigma (B, columns) repeat for every further B rows.
KERNEL(reparameterize, const real *mu, const real *logvar, const real *eps, real *z, real *sigma,
       index rows, index columns, index B, index mu_stride, index logvar_stride, index eps_stride) {
    EACH_ROW(r, rows) {
        index b = r % B;
        EACH_THREAD(t) EACH_COLUMN(j, t, columns) {
            real s = exp((real)0.5 * logvar[b * logvar_stride + j]);
            if (r == b) sigma[b * columns + j] = s;
            z[r * columns + j] = mu[b * mu_stride + j] + s * eps[r * eps_stride + j];
        }
    }
}

// One draw for each example. (dmu is dz itself.)
KERNEL(reparameterize_backward, const real *dz, const real *eps, const real *sigma, real *dlogvar,
       index n) {
    EACH_THREAD(t) EACH_ELEMENT(i, t, n) dlogvar[i] = dz[i] * eps[i] * ((real)0.5 * sigma[i]);
}

// kl (rows,)
KERNEL(kl_standard_normal, const real *mu, const real *logvar, real *kl,
       index rows, index columns, index mu_stride, index logvar_stride) {
    SHARED double part[THREADS];
    EACH_ROW(r, rows) {
        const real *m = mu + r * mu_stride, *lv = logvar + r * logvar_stride;
        EACH_THREAD(t) {
            part[t] = 0;
            EACH_COLUMN(j, t, columns)
                part[t] += (real)0.5 * (m[j] * m[j] + expm1(lv[j]) - lv[j]);
        }
        fold(part);
        EACH_THREAD(t)
            if (t == 0) kl[r] = (real)part[0];
    }
}

// dmu and dlogvar (rows, columns) from dkl (rows,)
KERNEL(kl_standard_normal_backward, const real *dkl, const real *mu, const real *logvar,
       real *dmu, real *dlogvar,
       index rows, index columns, index mu_stride, index logvar_stride) {
    EACH_ROW(r, rows) {
        const real *m = mu + r * mu_stride, *lv = logvar + r * logvar_stride;
        EACH_THREAD(t) EACH_COLUMN(j, t, columns) {
            dmu[r * columns + j] = dkl[r] * m[j];
            dlogvar[r * columns + j] = dkl[r] * ((real)0.5 * expm1(lv[j]));
        }
    }
}

// ---- fused.py ------------------------------------------------------------------------------------

// h (rows, columns) = relu(y + b). A number that is no number stays what it is.
KERNEL(bias_and_relu, const real *y, const real *b, real *h, index rows, index columns) {
    EACH_ROW(r, rows)
        EACH_THREAD(t) EACH_COLUMN(j, t, columns) {
            real biased = y[r * columns + j] + b[j];
            h[r * columns + j] = biased < 0 ? (real)0 : biased;
        }
}

// product, b and code hold [mu | logvar], (rows, 2 columns); eps, z and sigma (rows, columns);
// kl (rows,)
KERNEL(code_and_kl, const real *product, const real *b, const real *eps,
       real *code, real *z, real *sigma, real *kl, index rows, index columns) {
    SHARED double part[THREADS];
    EACH_ROW(r, rows) {
        EACH_THREAD(t) {
            part[t] = 0;
            EACH_COLUMN(j, t, columns) {
                index i = r * columns + j, mu = i + r * columns, logvar = mu + columns;
                real m = product[mu] + b[j], lv = product[logvar] + b[columns + j];
                real s = exp((real)0.5 * lv);
                code[mu] = m;
                code[logvar] = lv;
                sigma[i] = s;
                z[i] = m + s * eps[i];
                part[t] += (real)0.5 * (m * m + expm1(lv) - lv);
            }
        }
        fold(part);
        EACH_THREAD(t)
            if (t == 0) kl[r] = (real)part[0];
    }
}

// dcode as code above
KERNEL(code_gradient, const real *dz, const real *eps, const real *code, const real *sigma,
       real *dcode, double dkl, index rows, index columns) {
    EACH_ROW(r, rows)
        EACH_THREAD(t) EACH_COLUMN(j, t, columns) {
            index i = r * columns + j, mu = i + r * columns, logvar = mu + columns;
            dcode[mu] = dz[i] + (real)dkl * code[mu];
            dcode[logvar] = dz[i] * eps[i] * ((real)0.5 * sigma[i]) +
                            (real)dkl * ((real)0.5 * expm1(code[logvar]));
        }
}

// x, product and dlogits (rows, columns), b (columns,), nll (rows,)
KERNEL(bernoulli_nll_and_gradient, const real *x, const real *product, const real *b,
       real *nll, real *dlogits, double dnll, index rows, index columns) {
    SHARED double part[THREADS];
    EACH_ROW(r, rows) {
        EACH_THREAD(t) {
            part[t] = 0;
            EACH_COLUMN(j, t, columns) {
                index i = r * columns + j;
                real l = product[i] + b[j];
                part[t] += softplus(l) - x[i] * l;
                dlogits[i] = (real)dnll * (sigmoid(l) - x[i]);
            }
        }
        fold(part);
        EACH_THREAD(t)
            if (t == 0) nll[r] = (real)part[0];
    }
}

// means (3,) from nll and kl (rows,). One block does it all.
KERNEL(batch_means, const real *nll, const real *kl, double *means,
       double beta, index n, index rows) {
    SHARED double loss[THREADS], reconstruction[THREADS], divergence[THREADS];
    EACH_THREAD(t) {
        loss[t] = reconstruction[t] = divergence[t] = 0;
        EACH_COLUMN(i, t, rows) {
            loss[t] += nll[i] + (real)beta * kl[i];
            reconstruction[t] += nll[i];
            divergence[t] += kl[i];
        }
    }
    fold(loss);
    fold(reconstruction);
    fold(divergence);
    EACH_THREAD(t)
        if (t == 0) {
            means[0] = loss[0] / n;
            means[1] = reconstruction[0] / n;
            means[2] = divergence[0] / n;
        }
}

// ---- optimizers.py -------------------------------------------------------------------------------

// value, g, m and v (n,). change1 and change2 are 1 - beta1 and 1 - beta2.
KERNEL(adam_update, real *value, const real *g, real *m, real *v,
       double change1, double change2, double step, double eps, index n) {
    EACH_THREAD(t) EACH_ELEMENT(i, t, n) {
        m[i] += (real)change1 * (g[i] - m[i]);
        v[i] += (real)change2 * (g[i] * g[i] - v[i]);
        value[i] -= (real)step * m[i] / (sqrt(v[i]) + (real)eps);
    }
}

// ---- datasets.py ---------------------------------------------------------------------------------

// x (rows, columns): the rows `chosen` of images (N, columns), divided by `scale`. A negative one
// counts from the end. One that does not exist becomes NaN: a kernel cannot raise.
KERNEL(gather, const byte *images, const index *chosen, real *x,
       index rows, index columns, index N, index images_stride, double scale) {
    EACH_ROW(r, rows) {
        index i = chosen[r] < 0 ? chosen[r] + N : chosen[r];
        bool exists = 0 <= i && i < N;
        EACH_THREAD(t) EACH_COLUMN(j, t, columns)
            x[r * columns + j] =
                exists ? (real)images[i * images_stride + j] / (real)scale : (real)nan("");
    }
}
