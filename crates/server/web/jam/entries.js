// Where entries lie: in IndexedDB, or in this page's memory where that is denied. An entry is a value under a key that is an array
// of texts and numbers; its first part is the user id. `store` says what entries mean.
//
// Invariants: a transaction is kept whole or not at all, and `transact` resolves when it is kept (in IndexedDB: on `complete`),
// never before; what takes longer than TRANSACTION_MS is taken back, or it is waited for: only after COMMIT_MS more is it UNSURE
// what became of it. Transactions that write come one after the other, also from several tabs.

import { within } from './world.js'

/** @typedef {(string | number)[]} Key */

/**
 * @typedef {object} Transaction
 * @property {(key: Key) => Promise<any>} get  undefined if there is none.
 * @property {(key: Key, value: unknown) => void} put
 * @property {(key: Key) => void} delete
 * @property {(prefix: Key, page?: Page) => Promise<[Key, any][]>} list  Entries whose keys begin so and have one part more, in order of that.
 * @property {(prefix: Key) => Promise<number>} count
 * @property {(prefix: Key) => void} clear  All entries whose keys begin so.
 */

/** @typedef {{ after?: number, before?: number, limit?: number, newest?: boolean }} Page  `newest`: from the last one backwards. */

/**
 * @typedef {object} Entries
 * @property {boolean} persistent
 * @property {<T>(kind: 'read' | 'write', work: (transaction: Transaction) => Promise<T>) => Promise<T>} transact
 * @property {() => void} close
 */

const OBJECT_STORE = 'entries'
const OPEN_MS = 60_000
const TRANSACTION_MS = 30_000
const COMMIT_MS = 60_000
/** The error of a transaction that may be kept, or may not. */
export const UNSURE = 'no answer whether it is kept'

/**
 * @param {string | null} name
 * @param {import('./world.js').World} world
 * @returns {Promise<Entries>}
 */
export async function openEntries (name, world) {
  if (name === null) return new MemoryEntries()
  try {
    const factory = world.indexedDB()
    if (!factory) return new MemoryEntries()
    const entries = new IndexedEntries(name, factory, world)
    await entries.open()
    return entries
  } catch (error) {
    // Denied: by a policy, in a private window of old, by the user. Else it is there, and memory in its place would lose what comes.
    if (!/^Security|^InvalidState|denied/.test(`${error}`)) throw error
    return new MemoryEntries()
  }
}

/** All keys that begin so. @param {Key} prefix @param {Page} [page] */
const range = (prefix, { after = -Infinity, before } = {}) => IDBKeyRange.bound([...prefix, after], [...prefix, before ?? []], true, true)

class IndexedEntries {
  persistent = true
  #name
  #factory
  #world
  /** @type {Promise<IDBDatabase> | undefined} */ #database

  /** @param {string} name @param {IDBFactory} factory @param {import('./world.js').World} world */
  constructor (name, factory, world) {
    this.#name = name
    this.#factory = factory
    this.#world = world
  }

  /** Again after the browser has closed it, as it does when the user removes a site's data. */
  open () {
    if (this.#database) return this.#database
    /** @type {Promise<IDBDatabase>} */ const opening = new Promise((resolve, reject) => {
      const request = this.#factory.open(this.#name, 1)
      request.onupgradeneeded = () => request.result.createObjectStore(OBJECT_STORE)
      request.onerror = () => reject(request.error)
      request.onsuccess = () => resolve(request.result)
    })
    const database = within(this.#world, OPEN_MS, opening).then((open) => {
      open.onclose = () => { this.#database = undefined }
      open.onversionchange = () => this.close()
      return open
    }).catch((error) => {
      if (this.#database === database) this.#database = undefined
      opening.then((late) => late.close(), () => {}) // nobody knows of it any more, and it would stand in the way of others
      throw error
    })
    this.#database = database
    return database
  }

  /** @template T @param {'read' | 'write'} kind @param {(transaction: Transaction) => Promise<T>} work @returns {Promise<T>} */
  async transact (kind, work) {
    const running = await this.#begin(kind)
    /** @type {Promise<T>} */ const outcome = new Promise((resolve, reject) => {
      /** @type {T} */ let result
      running.oncomplete = () => resolve(result)
      running.onabort = () => reject(running.error ?? new Error('undone'))
      work(steps(running.objectStore(OBJECT_STORE))).then((value) => { result = value }, (error) => {
        reject(running.error ?? error) // of what was undone for want of room, each request says only that it was
        abort(running)
      })
    })
    try {
      return await within(this.#world, TRANSACTION_MS, outcome)
    } catch (error) {
      if (abort(running)) throw error
    }
    return within(this.#world, COMMIT_MS, outcome, UNSURE)
  }

  close () {
    this.#database?.then((database) => database.close(), () => {})
    this.#database = undefined
  }

  /** @param {'read' | 'write'} kind */
  async #begin (kind) {
    const begin = async () => (await this.open()).transaction(OBJECT_STORE, kind === 'write' ? 'readwrite' : 'readonly', { durability: 'strict' })
    await this.open()
    return begin().catch(() => {
      this.close() // a connection of which the browser knows nothing more
      return begin()
    })
  }
}

/** Whether it is undone by this; if not, it is over, or about to be kept. @param {IDBTransaction} transaction */
function abort (transaction) {
  try {
    transaction.abort()
    return true
  } catch {
    return false
  }
}

/** @param {IDBObjectStore} store @returns {Transaction} */
const steps = (store) => ({
  get: (key) => done(store.get(key)),
  put: (key, value) => { store.put(value, key) },
  delete: (key) => { store.delete(key) },
  count: (prefix) => done(store.count(range(prefix))),
  clear: (prefix) => { store.delete(range(prefix)) },
  list: (prefix, page = {}) => new Promise((resolve, reject) => {
    /** @type {[Key, any][]} */ const found = []
    const request = store.openCursor(range(prefix, page), page.newest ? 'prev' : 'next')
    request.onerror = () => reject(request.error)
    request.onsuccess = () => {
      const cursor = request.result
      if (!cursor || found.length >= (page.limit ?? Infinity)) return resolve(found)
      found.push([/** @type {Key} */ (cursor.key), cursor.value])
      cursor.continue()
    }
  })
})

/** @template T @param {IDBRequest<T>} request @returns {Promise<T>} */
const done = (request) => new Promise((resolve, reject) => {
  request.onsuccess = () => resolve(request.result)
  request.onerror = () => reject(request.error)
})

class MemoryEntries {
  persistent = false
  /** @type {Map<string, [Key, any]>} */ #entries = new Map()
  /** @type {Promise<unknown>} */ #last = Promise.resolve()

  /** @template T @param {'read' | 'write'} _ @param {(transaction: Transaction) => Promise<T>} work @returns {Promise<T>} */
  transact (_, work) {
    const result = this.#last.then(async () => {
      const entries = new Map(this.#entries)
      const value = await work(memorySteps(entries))
      this.#entries = entries
      return value
    })
    this.#last = result.catch(() => {})
    return result
  }

  close () {}
}

/** @param {Map<string, [Key, any]>} entries @returns {Transaction} */
function memorySteps (entries) {
  /** @param {Key} prefix */
  const below = (prefix) => [...entries.values()].filter(([key]) => key.length > prefix.length && prefix.every((part, at) => part === key[at]))
  return {
    get: async (key) => entries.get(JSON.stringify(key))?.[1],
    put: (key, value) => { entries.set(JSON.stringify(key), [key, value]) },
    delete: (key) => { entries.delete(JSON.stringify(key)) },
    count: async (prefix) => below(prefix).length,
    clear: (prefix) => { for (const [key] of below(prefix)) entries.delete(JSON.stringify(key)) },
    list: async (prefix, { after = -Infinity, before = Infinity, limit = Infinity, newest = false } = {}) => {
      const at = prefix.length
      const found = below(prefix).filter(([key]) => !(Number(key[at]) >= before || Number(key[at]) <= after)).sort(([a], [b]) => a[at] < b[at] ? -1 : 1)
      return (newest ? found.reverse() : found).slice(0, limit)
    }
  }
}
