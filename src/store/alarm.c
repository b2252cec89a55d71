/*
 * alarm -- waiting for a commit.
 *
 * A committer rings the bell twice, before and after its commit, both under the writer lock. If nothing goes wrong one of
 * the two is enough. A committer that is killed between its commit and the second ring has at least rung the first time:
 * whoever was woken by that and saw nothing yet is in doubt, and does not sleep soundly until a look has begun at
 * an instant at which nobody held the writer lock (a lock whose owner died counts as free). So no commit is slept through.
 */
#include <errno.h>
#include <string.h>

#include "base/clock.h"
#include "base/err.h"
#include "store/handle.h"
#include "store/write.h"

static const double PATIENCE = 0.001, PATIENCE_MAX = 0.25; /* seconds */

uint64_t zp_store_progress_tag(void) { return zp_bell_tag_all(""); /* no namespace has that name */ }

/* Whether nobody is writing at this instant, and all that was committed can be seen. */
static bool is_quiet(zp_env *env) {
  pthread_mutex_t *writer = &env->control->writer;
  int rc = zp_env_settle(env, pthread_mutex_trylock(writer));
  if (rc <= 0) pthread_mutex_unlock(writer);
  return rc == 0;
}

int zp_alarm_set(zp_store *store, zp_alarm *alarm, const zp_bytes *keys, size_t count) {
  int rc = zp_store_wake(store);
  if (rc) return rc;
  zp_bell *bell = store->env->bell;
  alarm->count = 0;
  if (count == 0 || count > ZP_ALARM_KEYS) {
    alarm->tags[alarm->count++] = zp_bell_tag_all(store->name);
  } else {
    for (size_t i = 0; i < count; i++) alarm->tags[alarm->count++] = zp_bell_tag(store->name, keys[i]);
  }
  alarm->tags[alarm->count++] = zp_store_progress_tag();
  for (size_t i = 0; i < alarm->count; i++) alarm->tickets[i] = zp_bell_arm(bell, alarm->tags[i]);
  if (alarm->doubtful && is_quiet(store->env)) alarm->doubtful = false;
  return 0;
}

int zp_alarm_wait(zp_store *store, zp_alarm *alarm, double deadline) {
  int rc = zp_store_wake(store);
  if (rc) return rc;
  zp_env_park(store->env);
  double until = deadline, now = zp_clock_now();
  if (alarm->doubtful && now + alarm->patience < deadline) until = now + alarm->patience;
  rc = zp_bell_wait(store->env->bell, alarm->tags, alarm->tickets, alarm->count, until);
  if (rc == 0) {
    alarm->doubtful = true;
    alarm->patience = PATIENCE;
  } else if (rc == ZP_ETIMEOUT && until < deadline) {
    alarm->patience = alarm->patience * 2 < PATIENCE_MAX ? alarm->patience * 2 : PATIENCE_MAX;
    rc = 0;
  }
  return rc;
}
