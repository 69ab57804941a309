// pg-boss with batches of 1,000, woken by NOTIFY, and fetching on at once while batches are full.
// It keeps finished jobs in their table.

import { PgBoss } from 'pg-boss';
import { carryOut, order } from '../loading.mjs';

const QUEUE = 'noop';
const LEFT = `SELECT count(*)::int AS jobs FROM pgboss.job WHERE name = '${QUEUE}' AND state < 'completed'`;

const WORK = {
  batchSize: 1000,
  // Two workers drain faster than one, and start a single job later.
  localConcurrency: order.do === 'drain' ? 2 : 1,
  pollingIntervalSeconds: 0.5,
  burstWhenBatchFull: true,
};

const boss = new PgBoss({ connectionString: order.where, useListenNotify: true });
boss.on('error', (error) => console.error(error));
await boss.start();

await carryOut({
  install: () => boss.createQueue(QUEUE, { notify: true }),
  create: (payloads) => boss.insert(QUEUE, payloads.map((data) => ({ data }))),
  createOne: (data) => boss.send(QUEUE, data),
  start: (note) =>
    boss.work(QUEUE, WORK, async (jobs) => {
      for (const job of jobs) note(job.id, job.data.sent);
    }),
  stop: () => boss.offWork(QUEUE),
  left: async () => (await boss.getDb().executeSql(LEFT)).rows[0].jobs,
});
