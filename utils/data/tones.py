"""Tones made by a script: twelve notes in two octaves, with overtones and noise."""

import numpy as np

from utils import given

RATE = 8000  # samples per second
NAMES = "A A# B C C# D D# E F F# G G#".split()


def tones(notes_N, seconds=0.1, noise=0.5, rng=None) -> np.ndarray:
    """A piece of sound for each note, all of deviation 1 before the noise: (N, samples).

    notes_N: whole numbers from 0 (A, 220 Hz) to 23 (G#, 831 Hz); note % 12 names it. Each
    has five partials of random strength and phase, and is out of tune by up to 15 cents.
    noise: the deviation of what is added; rng: np.random.default_rng(0) without one.
    """
    notes_N = given.arrays(notes_N=notes_N)
    if len(notes_N) and not 0 <= notes_N.min() <= notes_N.max() <= 23:
        raise ValueError("notes_N goes from 0 to 23")
    given.number("seconds", seconds, above=0), given.number("noise", noise)
    rng = given.generator(rng or np.random.default_rng(0), "uniform")
    off_N = rng.uniform(-0.15, 0.15, len(notes_N))
    hertz_N = 220 * 2 ** ((notes_N + off_N) / 12)
    time_T = np.arange(round(seconds * RATE)) / RATE
    wave_NT = np.zeros((len(notes_N), len(time_T)))
    for partial in range(1, 6):
        strength, phase = rng.uniform(0, 1, (2, len(notes_N), 1))
        angle_NT = 2 * np.pi * (partial * hertz_N[:, None] * time_T + phase)
        wave_NT += strength * np.sin(angle_NT)
    wave_NT /= wave_NT.std(1, keepdims=True)
    return (wave_NT + noise * rng.normal(size=wave_NT.shape)).astype(np.float32)
