/* SPDX-License-Identifier: MIT */
/* A picture as SVG text: shapes in pixels from the top left, and a logarithmic axis. */
#ifndef FILEMAP_BENCH_SVG_H
#define FILEMAP_BENCH_SVG_H

#include <stdio.h>

#define SVG_INK   "#1f2937"
#define SVG_FAINT "#6b7280"
#define SVG_GRID  "#e5e7eb"
#define SVG_MET   "#2f855a"
#define SVG_MISS  "#c53030"

enum svg_anchor { SVG_START, SVG_MIDDLE, SVG_END };

/* Begin a picture with a title and a line below the title. Returns NULL and sets errno on
 * failure. */
FILE *svg_open(const char *dir, const char *name, double width, double height, const char *title,
	       const char *below);
/* End the picture. Returns 0 or a negative errno. */
int svg_close(FILE *out);
void svg_text(FILE *out, double x, double y, enum svg_anchor anchor, double size, const char *color,
	      const char *text);
void svg_bold(FILE *out, double x, double y, enum svg_anchor anchor, double size, const char *color,
	      const char *text);
void svg_rect(FILE *out, double x, double y, double width, double height, const char *color);
void svg_line(FILE *out, double x1, double y1, double x2, double y2, double width,
	      const char *color, const char *dash);
void svg_circle(FILE *out, double x, double y, double r, const char *color);
void svg_diamond(FILE *out, double x, double y, double r, const char *color);

/* Values from `low` to `high` are at pixels from `left` to `right`. */
struct svg_axis {
	double low, high, left, right;
};
/* Make an axis with room for 1, and for all values from `low` to `high`. */
struct svg_axis svg_axis(double low, double high, double left, double right);
double svg_at(const struct svg_axis *axis, double value);
/* Draw the lines of the grid from `top` to `bottom`, with their values below. */
void svg_grid(FILE *out, const struct svg_axis *axis, double top, double bottom);

#endif
