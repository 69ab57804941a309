"""What each method of the clients asks for: arguments in, a `Call` out.

    queues.py    QueueService
    jobs.py      what producers and people ask of JobService
    workers.py   what people ask of JobService about its workers
    admin.py     AdminService
    building.py  what these share

These functions are the methods' signatures and manual; the clients add only the transport. Where a
method takes a `queue`, it is the queue's id or its name within the project. Each raises
InvalidRequest for what can never be sent, such as a payload that is no JSON.
"""
