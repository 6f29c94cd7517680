"""The predictions as a picture."""

from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter, StrMethodFormatter

from benchmarks.scale.forms import Form
from benchmarks.scale.model import step
from benchmarks.scale.prediction import MOST_WORKERS, SAMPLES, SIZES, least_shards, links, most_workers
from benchmarks.scale.quantities import Link, Parts
from benchmarks.scale.stages import Work

__all__ = ["draw"]

# Evenly spaced on a logarithmic axis.
_WORKERS = sorted({round(10 ** (exponent / 20)) for exponent in range(61)})
_FEWER_WORKERS = sorted({round(10 ** (exponent / 8)) for exponent in range(25)})
_COLOURS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#e0a800")
# Lines that lie on one another stay visible.
_WIDTHS = (5, 4.2, 3.4, 2.6, 1.5)
_PLAIN = StrMethodFormatter("{x:,.0f}")


def draw(parts: Parts, file: Path) -> None:
    """Steps and efficiency over workers with one parameter server, and the shards that are needed for many.

    One column for each link, one line for each size of network.
    """
    mpl.use("agg")
    columns, rows = links(parts), (_steps, _efficiency, _shards)
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(13, 12), sharex=True, sharey="row", layout="constrained"
    )
    for column, link in enumerate(columns):
        axes[0][column].set_title(link.name)
        axes[-1][column].set_xlabel("workers")
        for row, draw_row in enumerate(rows):
            draw_row(axes[row][column], parts, link)
            axes[row][column].grid(alpha=0.3)
    axes[0][0].set_ylabel("steps per second, one parameter server\n(dot: the last with an efficiency of 50 %)")
    axes[1][0].set_ylabel("efficiency, one parameter server\n(share of the workers' time that is computing)")
    axes[2][0].set_ylabel("parameter servers for an efficiency of 50 %\n(×: for more workers, no number will do)")
    lines, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(f"Predicted for {SAMPLES} samples of each worker in each step", fontsize=14)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def _steps(axes: Axes, parts: Parts, link: Link) -> None:
    for size, colour in zip(SIZES, _COLOURS, strict=True):
        form = Form.of_size(size)
        rates = [1 / step(Work(form, SAMPLES, workers), parts, link).seconds for workers in _WORKERS]
        axes.plot(_WORKERS, rates, color=colour, lw=2, label=f"$10^{len(str(size)) - 1}$ weights")
        if most := most_workers(form, SAMPLES, parts, link):
            axes.plot(most, 1 / step(Work(form, SAMPLES, most), parts, link).seconds, "o", color=colour, ms=8)
    axes.set(xscale="log", yscale="log", xlim=(1, MOST_WORKERS))
    axes.xaxis.set_major_formatter(_PLAIN)


def _efficiency(axes: Axes, parts: Parts, link: Link) -> None:
    for size, colour, width in zip(SIZES, _COLOURS, _WIDTHS, strict=True):
        form = Form.of_size(size)
        values = [step(Work(form, SAMPLES, workers), parts, link).efficiency for workers in _WORKERS]
        axes.plot(_WORKERS, values, color=colour, lw=width)
    axes.axhline(0.5, color="grey", ls=":")
    axes.set(ylim=(0, 1))
    axes.yaxis.set_major_formatter(PercentFormatter(1))


def _shards(axes: Axes, parts: Parts, link: Link) -> None:
    for size, colour, width in zip(SIZES, _COLOURS, _WIDTHS, strict=True):
        form = Form.of_size(size)
        needed = [(workers, least_shards(form, SAMPLES, workers, parts, link)) for workers in _FEWER_WORKERS]
        possible = [(workers, shards) for workers, shards in needed if shards]
        axes.plot(*zip(*possible, strict=True), color=colour, lw=width)
        if len(possible) < len(needed):
            axes.plot(*possible[-1], "x", color=colour, ms=11, mew=3)
    axes.set(yscale="log", ylim=(0.9, MOST_WORKERS))
    axes.yaxis.set_major_formatter(_PLAIN)
