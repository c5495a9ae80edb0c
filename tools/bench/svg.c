/* SPDX-License-Identifier: MIT */
/* Shapes as SVG text. */
#include "bench/svg.h"

#include <errno.h>
#include <limits.h>
#include <math.h>

#define FONT "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', Helvetica, Arial, sans-serif"

static void put_escaped(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '<')
			fputs("&lt;", out);
		else if (*text == '>')
			fputs("&gt;", out);
		else if (*text == '&')
			fputs("&amp;", out);
		else
			fputc(*text, out);
	}
}

FILE *svg_open(const char *dir, const char *name, double width, double height, const char *title,
	       const char *below)
{
	char path[PATH_MAX];
	FILE *out;

	if (snprintf(path, sizeof(path), "%s/%s.svg", dir, name) >= (int)sizeof(path)) {
		errno = ENAMETOOLONG;
		return NULL;
	}
	out = fopen(path, "we");
	if (!out)
		return NULL;
	fprintf(out,
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%g\" height=\"%g\" viewBox=\"0 0 %g %g\" "
		"font-family=\"" FONT "\">\n<title>",
		width, height, width, height);
	put_escaped(out, title);
	fprintf(out, "</title>\n<rect width=\"100%%\" height=\"100%%\" fill=\"#ffffff\"/>\n");
	svg_bold(out, 20, 30, SVG_START, 17, SVG_INK, title);
	svg_text(out, 20, 51, SVG_START, 13, SVG_FAINT, below);
	return out;
}

int svg_close(FILE *out)
{
	fputs("</svg>\n", out);
	errno = EIO;
	if (ferror(out)) {
		fclose(out);
		return -EIO;
	}
	return fclose(out) ? -errno : 0;
}

static void put_text(FILE *out, double x, double y, enum svg_anchor anchor, double size,
		     const char *color, const char *weight, const char *text)
{
	static const char *const anchors[] = {"start", "middle", "end"};

	fprintf(out,
		"<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%g\" fill=\"%s\"%s>", x,
		y, anchors[anchor], size, color, weight);
	put_escaped(out, text);
	fputs("</text>\n", out);
}

void svg_text(FILE *out, double x, double y, enum svg_anchor anchor, double size, const char *color,
	      const char *text)
{
	put_text(out, x, y, anchor, size, color, "", text);
}

void svg_bold(FILE *out, double x, double y, enum svg_anchor anchor, double size, const char *color,
	      const char *text)
{
	put_text(out, x, y, anchor, size, color, " font-weight=\"600\"", text);
}

void svg_rect(FILE *out, double x, double y, double width, double height, const char *color)
{
	fprintf(out,
		"<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" rx=\"2\" "
		"fill=\"%s\"/>\n",
		x, y, width, height, color);
}

void svg_line(FILE *out, double x1, double y1, double x2, double y2, double width,
	      const char *color, const char *dash)
{
	fprintf(out,
		"<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" "
		"stroke-width=\"%g\"",
		x1, y1, x2, y2, color, width);
	if (dash)
		fprintf(out, " stroke-dasharray=\"%s\"", dash);
	fputs("/>\n", out);
}

void svg_circle(FILE *out, double x, double y, double r, const char *color)
{
	fprintf(out,
		"<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%g\" fill=\"%s\" stroke=\"#ffffff\" "
		"stroke-width=\"1.2\"/>\n",
		x, y, r, color);
}

void svg_diamond(FILE *out, double x, double y, double r, const char *color)
{
	fprintf(out,
		"<path d=\"M%.1f %.1fl%g %gl%g %gl%g %gz\" fill=\"%s\" stroke=\"#ffffff\" "
		"stroke-width=\"1.2\"/>\n",
		x, y - r, r, r, -r, r, -r, -r, color);
}

/* ------------------------------------------------------------------ a logarithmic axis */

struct svg_axis svg_axis(double low, double high, double left, double right)
{
	struct svg_axis axis = {.left = left, .right = right};

	/* Show at least one half to 2, with a little space at each end. */
	axis.low = (low > 0 && low < 0.5 ? low : 0.5) / 1.12;
	axis.high = (high > 2 ? high : 2) * 1.12;
	return axis;
}

double svg_at(const struct svg_axis *axis, double value)
{
	double part = log(value / axis->low) / log(axis->high / axis->low);

	return axis->left + (part < 0 ? 0 : part > 1 ? 1 : part) * (axis->right - axis->left);
}

/* Draw lines at 1, 2 and 5 of each decade, or at 1 alone if there are many decades. */
void svg_grid(FILE *out, const struct svg_axis *axis, double top, double bottom)
{
	static const double steps[] = {1, 2, 5};
	unsigned per_decade = log10(axis->high / axis->low) > 2.6 ? 1 : 3;
	char text[24];

	for (int decade = (int)floor(log10(axis->low)); decade <= (int)ceil(log10(axis->high)); decade++) {
		for (unsigned s = 0; s < per_decade; s++) {
			double value = steps[s] * pow(10, decade), x;

			if (value < axis->low || value > axis->high)
				continue;
			x = svg_at(axis, value);
			svg_line(out, x, top, x, bottom, 1, SVG_GRID, NULL);
			snprintf(text, sizeof(text), "%g", value);
			svg_text(out, x, bottom + 16, SVG_MIDDLE, 12, SVG_FAINT, text);
		}
	}
}
