/* SPDX-License-Identifier: MIT */
/*
 * The settings of faulty:.
 * May call: faulty.h.
 */
#ifndef FM_STORE_FAULTY_SETTINGS_H
#define FM_STORE_FAULTY_SETTINGS_H

#include "store/faulty.h"

/* Make all waiting requests look at the settings again. Any thread. */
void faulty_changed(struct faulty_store *faulty);
/* The operation of a store; see store.h. */
int faulty_control(struct fm_store *store, const char *key, const char *value);
/* Take the settings from a URI's parameters. Returns 0, or a negative errno and the reason in
 * `error_text`. */
int faulty_parameters(struct faulty_store *faulty, const char *parameters, char *error_text,
		      size_t error_text_len);

#endif
