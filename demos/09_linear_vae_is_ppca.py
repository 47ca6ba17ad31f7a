"""A linear VAE is probabilistic PCA.

Without hidden layers, and with a Gaussian likelihood of one learned variance, a VAE is a model
whose best parameters have been known in closed form since 1999: those of probabilistic principal
component analysis. An eigendecomposition of the data's covariance gives them, and the largest
log p(x) that any such model can have.

So the right answer is known. Put into the model, it makes the bound equal to log p(x). And Adam,
which knows nothing of eigenvectors, climbs from random parameters to the same height.

Claim: at the optimum of probabilistic PCA the bound of a linear VAE is log p(x) itself, and
training from random parameters ends there, in the subspace of the first principal components.

Time: 15 s quick, 35 s full
"""

# %%
# M. E. Tipping and C. M. Bishop, "Probabilistic Principal Component Analysis", 1999: let lambda_j
# and u_j be the eigenvalues and eigenvectors of the covariance, the largest first. The best noise
# variance s^2 is the mean of the eigenvalues that are left out, row j of the decoder's W is
# sqrt(lambda_j - s^2) u_j, and the posterior of a code has the variance s^2 / lambda_j. With it as
# q(z|x) nothing is lost between the bound and log p(x).

import numpy as np
from scipy.linalg import helmert, subspace_angles

import scratchvae as sv
from scratchvae import demo_tools
from scratchvae.plots import BLUE, CLASSES, GREY, VERMILION

d = demo_tools.start("linear_vae_is_ppca")
D = d.dataset.data_dim
x = sv.backend.asnumpy(d.x[: max(500, 100_000 // D)]).astype(np.float64)  # (N, D)
mean = x.mean(axis=0)  # (D,)
eigenvalues, directions = np.linalg.eigh(np.cov(x.T, bias=True))
eigenvalues, directions = eigenvalues[::-1], directions[:, ::-1].T  # (D,) and, in rows, (D, D)


def best_log_p(Z):
    """Return the mean over x of log p(x) at the optimum, in nats."""
    s2 = eigenvalues[Z:].mean()
    log_det = np.log(eigenvalues[:Z]).sum() + (D - Z) * np.log(s2)
    return -0.5 * (D * np.log(2 * np.pi) + log_det + D)


def put_optimum(model, Z):
    """Make the model's parameters those of the closed form."""
    s2, kept = eigenvalues[Z:].mean(), eigenvalues[:Z]
    w = np.sqrt(kept - s2)[:, None] * directions[:Z]  # (Z, D)
    head = w / kept[:, None]  # mu = head (x - mean)
    values = {
        "encoder.0.W": np.concatenate([head, 0 * head]).T,  # logvar does not depend on x
        "encoder.0.b": np.concatenate([-head @ mean, np.log(s2 / kept)]),
        "decoder.0.W": w,
        "decoder.0.b": mean,
        "likelihood.logvar": np.log(s2),
    }
    for name, value in values.items():
        model.params[name].value[...] = d.backend.asarray(value)


# %%
# The loss of a linear VAE is quadratic in the noise eps, so only the noise's mean and covariance
# enter its expectation. The corners of a simplex, Z + 1 points, have mean 0 and covariance I
# exactly: in place of random draws they give the expected bound without any noise.

steps, gaps, decoders, noise = 1500, {}, {}, {}
for Z in (1, 4) if d.quick else (1, 2, 4, 8):
    model = d.vae((), Z, likelihood="gaussian", variance="shared", dtype="float64")
    rows = np.tile(x, (Z + 1, 1)), np.repeat(np.sqrt(Z + 1) * helmert(Z + 1).T, len(x), axis=0)
    rows = [d.backend.asarray(a) for a in rows]  # (N (Z + 1), D) and (N (Z + 1), Z)
    start = model.params.value.copy()
    put_optimum(model, Z)
    exact = abs(float(model.loss_and_grad(*rows).loss) + best_log_p(Z))
    model.params.value[...] = start
    optimizer, schedule = sv.Adam(model.params, 0.05, betas=(0.9, 0.99)), sv.cosine(0.05, steps)
    gaps[Z] = []
    for step in d.progress(range(steps), f"training with Z = {Z}"):
        optimizer.lr = schedule(step)
        gaps[Z].append(float(model.loss_and_grad(*rows).loss) + best_log_p(Z))
        optimizer.step()
    w = sv.backend.asnumpy(model.params["decoder.0.W"].value)  # (Z, D)
    decoders[Z], angle = w, subspace_angles(w.T, directions[:Z].T).max()
    noise[Z] = np.exp(float(model.params["likelihood.logvar"].value[0]))
    s2, gap, gain = eigenvalues[Z:].mean(), gaps[Z][-1], best_log_p(Z) - best_log_p(0)
    d.say(f"Z = {Z}: in closed form {best_log_p(Z):.4f} nats per example, noise variance {s2:.5f}")
    # Rounding of float64 sums of terms of size D / s^2 and less is some 1e-12.
    d.require(exact < 1e-9, f"the bound at the optimum differs from log p(x) by {exact:.0e} nats")
    # Of 5 seeds the worst gap was 0.0005 of the gain, and 0.0004 on MNIST. Where eigenvalues are
    # close a turn of W within its subspace costs next to nothing, so it takes long to be undone.
    d.require(
        -1e-9 < gap < 0.003 * gain and angle < 0.1 and abs(noise[Z] / s2 - 1) < 0.01,
        f"training ends {gap:.4f} nats below, of {gain:.1f} that the code is worth, "
        f"{angle:.4f} rad from the subspace, with noise variance {noise[Z]:.5f}",
    )

# %%
# Left: W W^T + s^2 of the trained model has nearly the data's leading eigenvalues, and the noise is
# level with the mean of the others. Right: the principal axes of the trained decoder as pictures.

Z = 4
values, axes_of_w = np.linalg.eigh(decoders[Z].T @ decoders[Z])  # (D,) and in columns (D, D)
trained = axes_of_w[:, ::-1].T[:Z]  # (Z, D), turned back to the principal axes of W
trained *= np.sign((trained * directions[:Z]).sum(axis=1))[:, None]  # signs are arbitrary
figure, (left, middle, right) = d.figure(1, 3, size=(13, 3.7), width_ratios=(4, 4, 5))
left.plot(range(1, 21), eigenvalues[:20], "o", color=GREY, ms=9, label="of the data")
left.plot(range(1, Z + 1), values[::-1][:Z] + noise[Z], "o", color=BLUE, label="of the VAE")
left.axhline(noise[Z], color=VERMILION, label="noise variance")
left.set(title=f"Eigenvalues, Z = {Z}", xlabel="component", ylabel="variance", ylim=(0, None))
left.legend()
for colour, Z_, style in zip(CLASSES[1::2], gaps, ("-", "--", "-.", ":"), strict=False):
    middle.loglog(range(1, steps + 1), gaps[Z_], style, color=colour, label=f"Z = {Z_}")
middle.set(title="Bound below the optimum", xlabel="step", ylabel="nats per example")
middle.legend()
limit = np.abs(trained).max()
d.show(right, [*directions[:Z], *trained], Z, cmap="RdBu", vmin=-limit, vmax=limit)
right.set_yticks([0.5, 1.5], ["data", "VAE"])
right.set(title="Principal axes, red < 0 < blue")
d.save(figure, alt="Eigenvalues and principal axes of data and VAE agree; the gap closes")
