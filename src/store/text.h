/* SPDX-License-Identifier: MIT */
/*
 * Words and numbers in URIs; see store.h for what stores call.
 * May call: nothing.
 */
#ifndef FM_STORE_TEXT_H
#define FM_STORE_TEXT_H

#include <stddef.h>

/* Decode percent-encoded text. Returns 0, or -EINVAL: bad digits, a zero byte, or no room. */
int text_percent_decode(const char *text, size_t text_len, char *out, size_t out_len);

#endif
