/* MQTT topic filters: does a granted filter allow this name, or this requested filter?
 *
 * One walk serves both, because a topic name is a filter without wildcards. It never over-grants; it refuses three
 * shapes it could allow (`+/#` over `#`, `+/+/#` over `/#`, `/+/#` over `/#`), and a request that only several grants
 * together would cover. */
#ifndef AUTHD_TOPICS_H
#define AUTHD_TOPICS_H

#include <stdbool.h>

/* True if `filter` is a legal MQTT topic filter without a share prefix (MQTT 5 §4.7): 1 to 256 bytes, no control
 * characters. */
bool topics_filter_valid(const char *filter);

/* True if the granted `filter` matches the topic name `name` (of the same 256 bytes at most). Illegal filters and names
 * match nothing. */
bool topics_matches(const char *filter, const char *name);

/* True if every name that `requested` matches is matched by `granted`. `requested` may be `$share/<group>/<filter>`:
 * then the inner filter counts, and a malformed share is not covered by anything. */
bool topics_covers(const char *granted, const char *requested);

/* The three steps of the two above, for one request against many grants: check the request once, each grant when it
 * arrives, then only walk. */

/* True for a topic name: 1 to 256 bytes, no wildcards, no control characters, no share prefix. */
bool topics_name_valid(const char *name);

/* The filter of a subscribe request without its share prefix (inside `requested`), NULL if either is malformed. */
const char *topics_requested(const char *requested);

/* True if `granted` (legal) covers `requested` (a legal name, or a result of topics_requested). */
bool topics_allows(const char *granted, const char *requested);

#endif
