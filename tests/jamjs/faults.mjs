// An IndexedDB that misbehaves as real ones do: denied, full, slow to commit, closed by the browser.

import { IDBFactory } from 'fake-indexeddb'

export class Faults {
  /** Whether a transaction that puts this value is taken back, as at the end of the quota. */
  full = () => false
  /** No transaction begins. */
  broken = false
  /** Those that are complete are told so only by `release()`. */
  held = false
  #pending = []
  databases = []

  factory () {
    const factory = new IDBFactory()
    return { open: (name, version) => this.#watch(factory.open(name, version)) }
  }

  release () {
    this.held = false
    for (const tell of this.#pending.splice(0)) tell()
  }

  /** As when the user removes the site's data: the connection closes, and the browser says so. */
  closeAll () {
    for (const database of this.databases.splice(0)) {
      database.close()
      database.onclose?.()
    }
  }

  #watch (request) {
    request.addEventListener('success', () => {
      const database = request.result
      this.databases.push(database)
      const begin = database.transaction.bind(database)
      database.transaction = (...options) => {
        if (this.broken) throw new DOMException('Internal error', 'UnknownError')
        return this.#watchTransaction(begin(...options))
      }
    })
    return request
  }

  #watchTransaction (transaction) {
    Object.defineProperty(transaction, 'oncomplete', { set: (then) => transaction.addEventListener('complete', () => { if (this.held) this.#pending.push(then); else then() }) })
    const open = transaction.objectStore.bind(transaction)
    transaction.objectStore = (name) => {
      const store = open(name)
      const put = store.put.bind(store)
      store.put = (value, key) => {
        if (this.full(value)) setImmediate(() => { try { transaction.abort() } catch {} })
        return put(value, key)
      }
      return store
    }
    return transaction
  }
}
