package bench;

import java.util.concurrent.CountDownLatch;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;

/** How fast candles are made of what is on the topic. */
public final class Throughput {
    private static volatile long begin;

    public static void main(String[] arguments) throws Exception {
        long wanted = Long.parseLong(Harness.setting("EVENTS"));
        AtomicLong seen = new AtomicLong();
        CountDownLatch never = new CountDownLatch(1);
        StreamsBuilder builder = new StreamsBuilder();
        Harness.candles(builder, (key, trade, candle) -> {
            long number = seen.incrementAndGet();
            if (number == 1) {
                begin = System.nanoTime();
                Harness.mark("first", "");
            } else if (number == wanted) {
                double seconds = (System.nanoTime() - begin) / 1e9;
                Harness.mark("done", "\"events\": " + (wanted - 1) + ", \"seconds\": " + seconds);
                hold(never);
            }
            return candle.add(trade);
        });
        new KafkaStreams(builder.build(), Harness.properties()).start();
        never.await();
    }

    private static void hold(CountDownLatch never) {
        try {
            never.await();
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }
}
