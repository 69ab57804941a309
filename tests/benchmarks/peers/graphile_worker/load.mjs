// graphile-worker with the settings of the page "Performance" of its documentation. It deletes
// finished jobs; there is no setting that keeps them.

import { Logger, makeWorkerUtils, run } from 'graphile-worker';
import { carryOut, order } from '../loading.mjs';

const TASK = 'noop';
const LEFT = 'SELECT count(*)::int AS jobs FROM graphile_worker._private_jobs';
const preset = {
  worker: {
    connectionString: order.where,
    concurrentJobs: 24,
    maxPoolSize: 25,
    localQueue: { size: 500 },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
    logger: new Logger(() => () => {}),
  },
};

const utils = await makeWorkerUtils({ preset });
let runner;

await carryOut({
  install: () => utils.migrate(),
  create: (payloads) => utils.addJobs(payloads.map((payload) => ({ identifier: TASK, payload }))),
  createOne: (payload) => utils.addJob(TASK, payload),
  start: async (note) => {
    const noop = async (payload, helpers) => note(helpers.job.id, payload.sent);
    runner = await run({ preset, taskList: { [TASK]: noop }, parsedCronItems: [], noHandleSignals: true });
  },
  stop: () => runner.stop(),
  left: () => utils.withPgClient(async (client) => (await client.query(LEFT)).rows[0].jobs),
});
