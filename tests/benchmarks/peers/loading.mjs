// What a load script does, whichever system it drives: loading.py for Node.js.
//
// A system has install(), create(payloads), createOne(payload), start(note), stop() and left(),
// which mean what they mean in loading.py.

import { setTimeout as sleep } from 'node:timers/promises';

const POLL_MS = 2;
const WARM_UP_CALLS = 50;
const WARM_UP_CALLERS = 10;
const WARM_UP_BATCH = 100;

export const order = {
  callers: 1,
  batch: 0,
  warm_up: 0,
  payload_bytes: 100,
  is_worked_off: false,
  ...JSON.parse(process.argv[2]),
};

// CLOCK_MONOTONIC, as in Python: all processes of a machine share it.
const nowNs = () => Number(process.hrtime.bigint());

function payloadOf(sent = 0) {
  const payload = { to: 'someone@example.com', template: 'welcome', user_id: 123456, sent, note: '' };
  payload.note = 'x'.repeat(order.payload_bytes - JSON.stringify(payload).length);
  return payload;
}

async function untilSettled(system) {
  while ((await system.left()) > 0) await sleep(POLL_MS);
  return nowNs();
}

async function runWorker(system, jobs) {
  let firstNs = 0;
  let count = 0;
  const ids = new Set();
  const waitsMs = [];
  await system.start((id, sent) => {
    const now = nowNs();
    firstNs ||= now;
    count += 1;
    ids.add(id);
    if (sent) waitsMs.push((now - sent) / 1e6);
  });
  while (count < jobs) await sleep(POLL_MS);
  const endedNs = await untilSettled(system);
  await system.stop();
  return { jobs: count, distinct: ids.size, first_ns: firstNs, ended_ns: endedNs, waits_ms: waitsMs };
}

async function createAll(system, jobs, callers, batch, isTimed) {
  let left = jobs;
  const payload = payloadOf();
  const call = async () => {
    while (left > 0) {
      const count = Math.min(batch || 1, left);
      left -= count;
      const one = isTimed ? payloadOf(nowNs()) : payload;
      await (batch ? system.create(Array(count).fill(one)) : system.createOne(one));
    }
  };
  await Promise.all(Array.from({ length: callers }, call));
}

async function warmUp(system) {
  if (!order.warm_up) return;
  await createAll(system, order.warm_up - WARM_UP_CALLS, 1, WARM_UP_BATCH, false);
  await createAll(system, WARM_UP_CALLS, WARM_UP_CALLERS, 0, false);
  if (order.is_worked_off) await untilSettled(system);
}

const orders = {
  async install(system) {
    await system.install();
    return {};
  },

  async enqueue(system) {
    await warmUp(system);
    const first_ns = nowNs();
    await createAll(system, order.jobs, order.callers, order.batch, order.is_worked_off);
    const last_ns = nowNs();
    const left = order.is_worked_off ? 0 : (await system.left()) - order.warm_up;
    return { first_ns, last_ns, left };
  },

  async pace(system) {
    await warmUp(system);
    const gapMs = 1000 / order.per_second;
    let due = performance.now();
    for (let job = 0; job < order.jobs; job += 1) {
      await sleep(Math.max(0, due - performance.now()));
      await system.createOne(payloadOf(nowNs()));
      due = Math.max(due + gapMs, performance.now());
    }
    return {};
  },

  async drain(system) {
    if (order.warm_up) {
      await warmUp(system);
      await runWorker(system, order.warm_up);
    }
    await createAll(system, order.jobs, 1, order.batch, false);
    return runWorker(system, order.jobs);
  },

  work: (system) => runWorker(system, order.warm_up + order.jobs),
};

export async function carryOut(system) {
  const outcome = await orders[order.do](system);
  process.stdout.write(`${JSON.stringify(outcome)}\n`, () => process.exit(0));
}
