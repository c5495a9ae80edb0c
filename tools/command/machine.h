/* SPDX-License-Identifier: MIT */
/* What the verbs ask of the machine: cgroup hierarchies, disks, files under /sys. */
#ifndef FILEMAP_MACHINE_H
#define FILEMAP_MACHINE_H

#include <stdbool.h>
#include <stddef.h>

/* Write a text to a file. Returns 0 or a negative errno. */
int machine_write_text(const char *path, const char *text);
/* Find where the version 1 hierarchy of a controller is mounted. Returns false if there is none. */
bool machine_find_hierarchy(const char *controller, char *path, size_t len);
/* Find the number of the whole disk that holds `path`, because limits do not apply to partitions.
 * Returns 0 or a negative errno. */
int machine_find_disk(const char *path, unsigned *ret_major, unsigned *ret_minor);

#endif
