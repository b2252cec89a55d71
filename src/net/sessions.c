#include "net/sessions.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

void zp_sessions_init(zp_sessions *self) {
  for (int i = 0; i < ZP_SESSION_BUCKETS; i++) LIST_INIT(&self->buckets[i]);
  TAILQ_INIT(&self->order);
  self->count = 0;
}

/* The number is random already. */
static size_t bucket_of(const unsigned char *client) {
  uint32_t number;
  memcpy(&number, client + 1, sizeof number);
  return number % ZP_SESSION_BUCKETS;
}

zp_session *zp_sessions_find(const zp_sessions *self, const unsigned char *client) {
  zp_session *session;
  LIST_FOREACH(session, &self->buckets[bucket_of(client)], in_bucket)
    if (memcmp(session->client, client, ZP_CLIENT_SIZE) == 0) return session;
  return NULL;
}

bool zp_session_matters(const zp_session *session) {
  return session->is_running || session->seat.is_worker || session->seat.produced.size > 0 || session->seat.inner.size > 0;
}

zp_session *zp_sessions_idlest(const zp_sessions *self) {
  zp_session *session;
  TAILQ_FOREACH(session, &self->order, in_order)
    if (!session->is_leaving && !zp_session_matters(session)) return session;
  return NULL;
}

zp_session *zp_sessions_add(zp_sessions *self, const unsigned char *client) {
  if (self->count >= ZP_SESSIONS_MAX + ZP_SESSIONS_LEAVING) return NULL;
  zp_session *session = calloc(1, sizeof *session);
  if (!session) return NULL;
  memcpy(session->client, client, ZP_CLIENT_SIZE);
  session->heard = session->noticed = zp_clock_now();
  LIST_INSERT_HEAD(&self->buckets[bucket_of(client)], session, in_bucket);
  TAILQ_INSERT_TAIL(&self->order, session, in_order);
  self->count++;
  return session;
}

void zp_sessions_touch(zp_sessions *self, zp_session *session) {
  session->heard = zp_clock_now();
  session->unreachable_since = 0;
  TAILQ_REMOVE(&self->order, session, in_order);
  TAILQ_INSERT_TAIL(&self->order, session, in_order);
}

void zp_sessions_dismiss(zp_session *session) {
  session->is_leaving = true;
  LIST_REMOVE(session, in_bucket);
}

void zp_sessions_remove(zp_sessions *self, zp_session *session) {
  if (!session->is_leaving) LIST_REMOVE(session, in_bucket);
  TAILQ_REMOVE(&self->order, session, in_order);
  self->count--;
  zp_buf_free(&session->answer.body);
  zp_buf_free(&session->job.body);
  zp_buf_free(&session->job.answer.body);
  zp_buf_free(&session->parked);
  free(session);
}
